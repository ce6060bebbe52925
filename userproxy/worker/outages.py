"""Which backends the workers have found down, for whoever sends connections to them without a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.model import messages
    from userproxy.model.address import Address
    from userproxy.model.service import PoolName
    from userproxy.worker.handle import WorkerHandle


class Outages:
    """What each worker that serves has told of its backends. Lives as long as the worker pool.

    Attributes:
        on_change: called when a worker has told of something else.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], object] | None = None
        self._told: dict[WorkerHandle, dict[PoolName, frozenset[Address]]] = {}

    def take(self, handle: WorkerHandle, part: messages.Outage) -> None:
        """A worker has told of a pool."""
        told = self._told.setdefault(handle, {})
        told[part.pool] = frozenset(part.backends)
        if not part.backends:
            del told[part.pool]
        if self.on_change is not None:
            self.on_change()

    def lose(self, handle: WorkerHandle) -> None:
        """A worker serves no longer: what it knows grows old."""
        if self._told.pop(handle, None) and self.on_change is not None:
            self.on_change()

    def by_pool(self) -> dict[PoolName, frozenset[Address]]:
        """The backends that any worker has found down."""
        found: dict[PoolName, frozenset[Address]] = {}
        for told in self._told.values():
            for name, backends in told.items():
                found[name] = found.get(name, frozenset()) | backends
        return found
