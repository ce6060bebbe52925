"""Datagrams: answers a second, latency and the proxy's CPU time, by our own client and the pods' nginx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.bench import usage
from userproxy.bench.workloads.base import MeasurementError, Outcome, RepeatedWorkload, Settings
from userproxy.bench.workloads.wrk import TOLERATED_FAILURES

if TYPE_CHECKING:
    from userproxy.bench.paths.base import Path


class Datagrams(RepeatedWorkload):
    """Small ones, each answered by one, from sockets that stay."""

    name = "udp"
    title = "datagrams"

    def why_not(self, path: Path, step: int) -> str | None:  # noqa: ARG002 - one step
        """Not over what carries no UDP."""
        return None if path.datagrams else "it relays no UDP"

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """The rate, the percentiles and the CPU time."""
        if settings.warmup:
            path.site.exchange(settings.warmup, path.echo)
        before = usage.cpu_time(path.processes())
        result = path.site.exchange(settings.seconds, path.echo)
        used = usage.cpu_time(path.processes()) - before
        if result.lost > TOLERATED_FAILURES * result.answers:
            raise MeasurementError(f"{result.lost} datagrams lost beside {result.answers} answers")
        found = [
            Outcome("datagrams", result.answers / result.seconds),
            Outcome("datagrams_p50", result.p50 * 1000),
            Outcome("datagrams_p99", result.p99 * 1000),
        ]
        if path.relays:
            found.append(Outcome("datagrams_cpu", (used.user + used.system) / result.answers * 1e6))
        return found
