"""What every Service port on this node is planned with."""

from __future__ import annotations

import msgspec

from userproxy.model.service import Path, ServicePort
from userproxy.model.snapshot import Node


class PlanContext(msgspec.Struct, frozen=True):
    """This node, and how the daemon serves on it.

    Attributes:
        node: that the daemon runs on.
        host_ip: of its listeners.
        mode: the path of Services that do not choose one.
        ports: the range of its host ports.
    """

    node: Node
    host_ip: str
    mode: Path
    ports: range


def path_of(service: ServicePort, mode: Path) -> Path:
    """How a Service's bytes travel: as its author chose, else as the daemon's mode has it."""
    return service.path or mode
