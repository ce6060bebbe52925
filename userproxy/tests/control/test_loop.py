"""The reconcile loop, in virtual time: at once after a quiet time, never too often, and until it works."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from userproxy.control.loop import Cadence, ReconcileLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CADENCE = Cadence(window=0.01, min_interval=0.1, first_retry=0.5, max_retry=30, resync=1000)


class VirtualTime:
    """A clock that stands still but for `advance`, which wakes each sleeper at its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._count = 0

    def clock(self) -> float:
        """The time now."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced so far."""
        self._count += 1
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await self.settle()
        self.now = end

    async def settle(self) -> None:
        """Let every task run until it waits for something."""
        for _ in range(20):
            await asyncio.sleep(0)


class Daemon:
    """A reconciler in virtual time, with a reconcile that fails or takes long when told to."""

    def __init__(self, cadence: Cadence = CADENCE) -> None:
        self.time = VirtualTime()
        self.starts: list[float] = []
        self.failures: list[tuple[str, float]] = []
        self.error: Exception | None = None
        self.takes = 0.0
        self.reconciler = ReconcileLoop(
            self._reconcile, self._failed, cadence, clock=self.time.clock, sleep=self.time.sleep
        )

    async def _reconcile(self) -> None:
        self.starts.append(round(self.time.now, 6))
        if self.takes:
            await self.time.sleep(self.takes)
        if self.error is not None:
            raise self.error

    def _failed(self, error: Exception, retry_in: float) -> None:
        self.failures.append((str(error), retry_in))


@asynccontextmanager
async def running(cadence: Cadence = CADENCE) -> AsyncIterator[Daemon]:
    daemon = Daemon(cadence)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(daemon.reconciler.run())
        await daemon.time.settle()
        yield daemon
        task.cancel()


async def test_nothing_happens_without_a_change() -> None:
    async with running() as daemon:
        await daemon.time.advance(500)
        assert daemon.starts == []
        assert daemon.reconciler.last_success is None


async def test_the_first_change_after_a_quiet_time_is_carried_out_at_once() -> None:
    async with running() as daemon:
        await daemon.time.advance(5)
        daemon.reconciler.notify()
        await daemon.time.advance(1)
        assert daemon.starts == [5.01]


async def test_a_burst_is_one_reconcile() -> None:
    async with running() as daemon:
        for _ in range(9):
            daemon.reconciler.notify()
            await daemon.time.advance(0.001)
        await daemon.time.advance(1)
        assert daemon.starts == [0.01]


async def test_changes_that_keep_coming_are_carried_out_at_a_bounded_rate() -> None:
    async with running() as daemon:
        for _ in range(500):
            daemon.reconciler.notify()
            await daemon.time.advance(0.001)
        assert daemon.starts == [0.01, 0.11, 0.21, 0.31, 0.41]


async def test_a_slow_reconcile_is_followed_by_a_rest() -> None:
    async with running() as daemon:
        daemon.takes = 3
        daemon.reconciler.notify()
        await daemon.time.advance(1)
        daemon.reconciler.notify()
        await daemon.time.advance(4)
        assert daemon.starts == [0.01, 3.11]


async def test_a_change_during_a_reconcile_is_not_lost() -> None:
    async with running() as daemon:
        daemon.takes = 1
        daemon.reconciler.notify()
        await daemon.time.advance(0.5)
        daemon.reconciler.notify()
        await daemon.time.advance(0.6)
        assert daemon.reconciler.pending_since == 0.5, "it came after the state had been read"
        await daemon.time.advance(5)
        assert daemon.starts == [0.01, 1.11]
        assert daemon.reconciler.pending_since is None


async def test_a_failure_is_retried_ever_more_rarely() -> None:
    async with running() as daemon:
        daemon.error = OSError("netlink: no buffer space")
        daemon.reconciler.notify()
        await daemon.time.advance(90)
        delays = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        assert daemon.failures == [("netlink: no buffer space", delay) for delay in delays]
        assert daemon.starts == [0.01, 0.51, 1.51, 3.51, 7.51, 15.51, 31.51, 61.51]


async def test_a_change_during_a_backoff_is_tried_soon() -> None:
    async with running() as daemon:
        daemon.error = OSError("busy")
        daemon.reconciler.notify()
        await daemon.time.advance(40)
        tries = len(daemon.starts)
        for _ in range(300):
            daemon.reconciler.notify()
            await daemon.time.advance(0.001)
        assert daemon.starts[tries:] == [40.01, 40.11, 40.21]


async def test_a_success_ends_the_backoff() -> None:
    async with running() as daemon:
        daemon.error = OSError("busy")
        daemon.reconciler.notify()
        await daemon.time.advance(2)
        daemon.error = None
        await daemon.time.advance(100)
        assert daemon.starts == [0.01, 0.51, 1.51, 3.51]
        daemon.error = OSError("busy again")
        daemon.reconciler.notify()
        await daemon.time.advance(0.1)
        assert daemon.failures[-1] == ("busy again", 0.5)


async def test_the_kernel_is_looked_after_without_changes() -> None:
    async with running(Cadence(window=0.01, resync=60)) as daemon:
        await daemon.time.advance(30)
        daemon.reconciler.notify()
        await daemon.time.advance(130)
        assert daemon.starts == [30.01, 90.01, 150.01]
        assert daemon.reconciler.pending_since is None


async def test_pending_since_is_the_oldest_change_through_every_failure() -> None:
    async with running() as daemon:
        daemon.error = OSError("busy")
        await daemon.time.advance(7)
        daemon.reconciler.notify()
        assert daemon.reconciler.pending_since == 7
        await daemon.time.advance(3)
        daemon.reconciler.notify()
        await daemon.time.advance(3)
        assert daemon.reconciler.pending_since == 7
        daemon.error = None
        await daemon.time.advance(30)
        assert daemon.reconciler.pending_since is None


async def test_last_success_tells_when_the_kernel_was_last_right() -> None:
    async with running() as daemon:
        daemon.takes = 1
        daemon.reconciler.notify()
        await daemon.time.advance(2)
        assert daemon.reconciler.last_success == pytest.approx(1.01)
        daemon.error = OSError("busy")
        daemon.reconciler.notify()
        await daemon.time.advance(2)
        assert daemon.reconciler.last_success == pytest.approx(1.01)


async def test_a_change_from_before_the_start_is_carried_out() -> None:
    daemon = Daemon()
    daemon.reconciler.notify()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(daemon.reconciler.run())
        await daemon.time.advance(1)
        assert daemon.starts == [0.01]
        task.cancel()


async def test_cancelling_ends_it_even_in_a_reconcile() -> None:
    async with running() as daemon:
        daemon.takes = 10
        daemon.reconciler.notify()
        await daemon.time.advance(1)
    assert daemon.starts == [0.01]
    assert daemon.failures == []


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_cadence_without_a_pause_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="min_interval"):
        Cadence(min_interval=seconds)
