"""Memory: how much the proxy's processes grow by an open connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.bench import usage
from userproxy.bench.site import settle
from userproxy.bench.workloads.base import MeasurementError, Outcome, Settings, Workload

if TYPE_CHECKING:
    from userproxy.bench.paths.base import Path

_WARM_CONNECTIONS = 50
_SETTLE_SECONDS = 0.5


class Memory(Workload):
    """Connections that are held open, each after one request."""

    name = "memory"
    title = "memory of open connections"

    def steps(self, settings: Settings) -> dict[int, int]:
        """One variant."""
        return {0: settings.memory_rounds}

    def why_not(self, path: Path, step: int) -> str | None:  # noqa: ARG002 - one step
        """Without a process there is no memory of one."""
        return None if path.relays else ""

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """What the processes have grown by, of a proxy that has just started."""
        path.stop()
        path.start()
        path.site.answers(_WARM_CONNECTIONS, [path.http])
        settle(_SETTLE_SECONDS)
        before = usage.resident_bytes(path.processes())
        count = min(settings.held, path.most_held or settings.held)
        with path.site.holding(count, path.http):
            settle(_SETTLE_SECONDS)
            grown = usage.resident_bytes(path.processes()) - before
        if grown < 0 or not before:
            raise MeasurementError(f"the proxy's processes were {before} bytes, and grew by {grown}")
        return [Outcome("memory", grown / 1024 / count)]
