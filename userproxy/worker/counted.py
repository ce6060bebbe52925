"""What the workers of a node have counted, those included that are gone: no counter runs backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from userproxy.worker.handle import WorkerHandle


class Counted:
    """The counters of workers, as they told them last.

    Attributes:
        past: what workers have counted that are gone.
    """

    def __init__(self) -> None:
        self.past = Counters()

    def living(self, handles: Iterable[WorkerHandle]) -> dict[int, Counters]:
        """What these have counted, by name."""
        found: dict[int, Counters] = {}
        for handle in handles:  # those of an earlier version may have the same one
            found[handle.name] = Counters.total(found.get(handle.name, Counters()), handle.counters)
        return found

    def recall(self, known: Mapping[int, Counters], handles: Iterable[WorkerHandle]) -> None:
        """Take over what workers had counted when an earlier daemon asked; some may not be there any more."""
        found = {handle.name: handle for handle in handles}
        for name, counters in known.items():
            if name in found:
                found[name].counters = counters
            else:
                self.past.merge(counters)

    def lose(self, handle: WorkerHandle) -> None:
        """A worker is gone; what it had counted stays."""
        self.past.merge(handle.counters)
        if not handle.retiring:
            self.past.worker_restarts["died"] += 1

    def replace(self) -> None:
        """A worker was told to go, for another one to take its place."""
        self.past.worker_restarts["replaced"] += 1
