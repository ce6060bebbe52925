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
        """What these have counted, by pid."""
        found: dict[int, Counters] = {}
        for handle in handles:  # of several containers, two may have the same pid
            found[handle.pid] = Counters.total(found.get(handle.pid, Counters()), handle.counters)
        return found

    def recall(self, known: Mapping[int, Counters], handles: Iterable[WorkerHandle]) -> None:
        """Take over what workers had counted when an earlier daemon asked; some may not be there any more."""
        found = {handle.pid: handle for handle in handles}
        for pid, counters in known.items():
            if pid in found:
                found[pid].counters = counters
            else:
                self.past.merge(counters)

    def lose(self, handle: WorkerHandle) -> None:
        """A worker is gone; what it had counted stays."""
        self.past.merge(handle.counters)
