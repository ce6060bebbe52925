"""What workers are called: in the ids of their connections, and where their counters are kept.

A worker is called by its pid, as long as no other is. In another container, one may have the same pid.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.worker.handle import WorkerHandle


class Names:
    """The names that a daemon has given to its workers. Lives as long as the worker pool."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def new(self, pid: int, others: Iterable[WorkerHandle]) -> int:
        """A name for the worker with this pid: that, or the next number that no other worker has."""
        taken = self._given | {other.name for other in others}
        name = next(number for number in itertools.count(pid) if number not in taken)
        self._given.add(name)
        return name
