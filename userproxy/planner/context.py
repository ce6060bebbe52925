"""What every Service port on this node is planned with."""

from __future__ import annotations

import msgspec

from userproxy.model.address import IpFamily
from userproxy.model.network import NodeNetwork
from userproxy.model.service import Path, ServicePort
from userproxy.model.snapshot import Node
from userproxy.model.state import Perimeter

LOOPBACKS = {IpFamily.IPV4: "127.0.0.1", IpFamily.IPV6: "::1"}


class PlanContext(msgspec.Struct, frozen=True):
    """This node, and how the daemon serves on it.

    Attributes:
        node: that the daemon runs on.
        network: its addresses.
        mode: the path of Services that do not choose one.
        ports: the range of its host ports.
        closed: cluster IPs cannot be reached from outside.
        udp_idle: seconds that a UDP client's session may carry nothing, where its Service does not say.
        fall_open: whether new connections go to the pods while no worker accepts them, likewise.
        workers: how many do when all is well.
        queues: in how many packets can wait for a steering process; 0: the kernel has none.
        limits: whether the kernel can refuse a connection too many.
    """

    node: Node
    network: NodeNetwork
    mode: Path
    ports: range
    closed: bool = True
    udp_idle: float = 30.0
    fall_open: bool = True
    workers: int = 1
    queues: int = 1
    limits: bool = True

    @property
    def perimeter(self) -> Perimeter:
        """Where the outside begins."""
        return Perimeter(self.network.uplinks, self.network.pod_networks, self.closed)


def path_of(service: ServicePort, mode: Path) -> Path:
    """How a Service's bytes travel: as its author chose, else as the daemon's mode has it."""
    return service.path or mode
