"""Service ports and the node that they are planned for, in few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.network import NodeNetwork
from userproxy.model.service import Entry, EntryKind, Path
from userproxy.model.snapshot import Node
from userproxy.planner.context import PlanContext

if TYPE_CHECKING:
    from userproxy.model.address import Address


def cluster_ips(*addresses: Address) -> tuple[Entry, ...]:
    """Those of a Service port that is reached by cluster IPs alone."""
    return tuple(Entry(EntryKind.CLUSTER_IP, address) for address in addresses)


def context(
    mode: Path = Path.REDIRECT_TO_HOST, ports: range = range(10400, 10500), *, fall_open: bool = False
) -> PlanContext:
    """That of host1, in zone east. By default nothing is behind a listener: fewer words again."""
    network = NodeNetwork(("10.100.0.2",), ("10.100.0.2",))
    return PlanContext(Node("host1", "east"), network, mode, ports, fall_open=fall_open)
