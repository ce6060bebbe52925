"""A room for each way that a Service's bytes may travel: what a Service port comes to on it.

A path is a module with the two functions of `PathModule`; `PATHS` chooses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from userproxy.model.service import Path
from userproxy.planner.paths import to_host, to_pod

if TYPE_CHECKING:
    from userproxy.model.service import ServicePort
    from userproxy.planner.outcome import Outcome, Traffic


class PathModule(Protocol):
    """One way for a Service's bytes."""

    def needs_host_port(self, service: ServicePort, /) -> bool:
        """Whether a Service port is served by a listener of ours."""

    def outcome_of(self, traffic: Traffic, /) -> Outcome:
        """What a Service port comes to."""


PATHS: dict[Path, PathModule] = {Path.REDIRECT_TO_HOST: to_host, Path.REDIRECT_TO_POD: to_pod}
