"""The reconcile loop: changes come in bursts and at any rate, the kernel hears of them at a bounded one.

The first change after a quiet time is applied at once, but for a short window in which the rest of its
burst arrives. While changes keep coming, and while carrying them out fails, the loop keeps its distance.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any


class Cadence(msgspec.Struct, frozen=True, kw_only=True):
    """How often to reconcile, all in seconds and above zero.

    Attributes:
        window: from the first change of a burst to the reconcile that applies it.
        min_interval: from the end of one reconcile to the start of the next one.
        first_retry: from a failure to the next try; it doubles with each further failure.
        max_retry: what it doubles up to.
        resync: from the last reconcile to one without any change, to repair what others did to the kernel.
    """

    window: float = 0.005
    min_interval: float = 0.1
    first_retry: float = 0.5
    max_retry: float = 30.0
    resync: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"cadence: {name} is {getattr(self, name)}, and must be above 0 seconds")


EVERYDAY = Cadence()


class ReconcileLoop:
    """Runs one reconcile at a time, when there is something to apply. Lives as long as the daemon."""

    def __init__(
        self,
        reconcile: Callable[[], Awaitable[None]],
        on_failure: Callable[[Exception, float], None],
        cadence: Cadence = EVERYDAY,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        """Prepare the loop; `run` starts it.

        Args:
            reconcile: applies the latest desired state; may raise.
            on_failure: told of each error that `reconcile` raised, and in how many seconds at the latest it
                is tried again; must not raise.
            cadence: how often.
            clock: the time in seconds, never going back.
            sleep: waits for that many seconds of the clock.
        """
        self._reconcile = reconcile
        self._on_failure = on_failure
        self._cadence = cadence
        self._clock = clock
        self._sleep = sleep
        self._changed = asyncio.Event()
        self._notified_at: float | None = None
        self._pending_since: float | None = None
        self._last_end: float | None = None
        self._last_success: float | None = None
        self._retry_in: float | None = None

    @property
    def pending_since(self) -> float | None:
        """When the oldest change came in that is not applied yet; None if all are."""
        return self._pending_since

    @property
    def last_success(self) -> float | None:
        """When a reconcile last ended well; None if none did yet."""
        return self._last_success

    def notify(self) -> None:
        """Say that the desired state has changed. Cheap; to be called on the loop's thread."""
        if self._notified_at is None:
            self._notified_at = self._clock()
            if self._pending_since is None:
                self._pending_since = self._notified_at
            self._changed.set()

    async def run(self) -> None:
        """Reconcile whenever it is due, until cancelled."""
        started = self._clock()
        while True:
            while (wait := self._due(started) - self._clock()) > 0:
                await self._pause(wait)
            await self._once()

    def _due(self, started: float) -> float:
        """When the next reconcile is due, as far as is known now."""
        ended = started if self._last_end is None else self._last_end
        due = ended + (self._cadence.resync if self._retry_in is None else self._retry_in)
        if self._notified_at is None:
            return due
        changed = self._notified_at + self._cadence.window
        if self._last_end is not None:
            changed = max(changed, self._last_end + self._cadence.min_interval)
        return min(due, changed)

    async def _pause(self, seconds: float) -> None:
        """Wait for some time, or for the first change since the last reconcile."""
        self._changed.clear()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._sleep(seconds)), group.create_task(self._changed.wait())
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()

    async def _once(self) -> None:
        self._notified_at = None
        try:
            await self._reconcile()
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the next try may go well
            self._last_end = self._clock()
            longer = self._cadence.first_retry if self._retry_in is None else 2 * self._retry_in
            self._retry_in = min(longer, self._cadence.max_retry)
            self._on_failure(error, self._retry_in)
        else:
            self._last_end = self._last_success = self._clock()
            self._retry_in = None
            self._pending_since = self._notified_at
