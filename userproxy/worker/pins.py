"""The pins of all workers, kept for those that are started later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.backends.affinity import Affinity
from userproxy.model import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from userproxy.model.service import PoolName

_IN_ONE_MESSAGE = 1000


class SharedPins:
    """Where clients are pinned to, by pool. Lives as long as the worker pool.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[PoolName, Affinity] = {}

    def take(self, parts: Iterable[messages.Pins]) -> None:
        """Take in what workers tell."""
        for part in parts:
            self._pools.setdefault(part.pool, Affinity()).learn(part.pins, self._clock())

    def forget(self, names: Iterable[PoolName]) -> None:
        """These pools are served no longer."""
        for name in names:
            self._pools.pop(name, None)

    def all(self) -> Iterator[messages.LearnPins]:
        """What to tell a worker that has just started."""
        now = self._clock()
        for name, affinity in self._pools.items():
            pins = tuple(affinity.all(now))
            for start in range(0, len(pins), _IN_ONE_MESSAGE):
                yield messages.LearnPins(pool=name, pins=pins[start : start + _IN_ONE_MESSAGE])
