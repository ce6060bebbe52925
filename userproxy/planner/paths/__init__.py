"""A room for each way that a Service's bytes may travel: what a Service port comes to on it.

A path is a module with the two functions of `PathModule`; `PATHS` chooses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from userproxy.model.service import Path
from userproxy.planner.paths import steered, to_host, to_pod

if TYPE_CHECKING:
    from userproxy.model.service import PoolName, ServicePort
    from userproxy.planner.context import PlanContext
    from userproxy.planner.outcome import Outcome, Traffic


class PathModule(Protocol):
    """One way for a Service's bytes."""

    def listeners_of(self, service: ServicePort, context: PlanContext, /) -> tuple[PoolName, ...]:
        """The pools of a Service port that need a listener of ours, and so a host port."""

    def outcome_of(self, traffic: Traffic, /) -> Outcome:
        """What a Service port comes to."""


PATHS: dict[Path, PathModule] = {
    Path.REDIRECT_TO_HOST: to_host,
    Path.REDIRECT_TO_POD: to_pod,
    Path.STEERED: steered,
}
