"""Which workloads there are, in the order in which they are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.bench.workloads.datagrams import Datagrams
from userproxy.bench.workloads.dns import Queries
from userproxy.bench.workloads.iperf import Throughput
from userproxy.bench.workloads.memory import Memory
from userproxy.bench.workloads.scale import Mixed, Scale
from userproxy.bench.workloads.wrk import CONNECTIONS, Latency, NewConnections, Requests

if TYPE_CHECKING:
    from userproxy.bench.workloads.base import Workload


def workloads() -> dict[str, Workload]:
    """All of them, by name, those of each round first.

    `scale` and `mixed` come last: they leave a path with other Services than they found.
    """
    each = (
        Requests(1),
        Latency(CONNECTIONS),
        Requests(512),
        NewConnections(),
        Throughput(1),
        Throughput(4),
        Queries(),
        Datagrams(),
        Memory(),
        Scale(),
        Mixed(),
    )
    return {workload.name: workload for workload in each}


NAMES = tuple(workloads())
