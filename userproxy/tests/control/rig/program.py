"""A whole daemon whose neighbours are in memory, and which is sent real signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
from typing import TYPE_CHECKING

from userproxy.control.announcer import Announcer
from userproxy.control.daemon import Daemon, Parts
from userproxy.control.handover import NOTHING, Handover
from userproxy.control.succession import wire
from userproxy.control.succession.incumbent import Incumbent
from userproxy.control.succession.tenure import Tenure
from userproxy.ops.http.metrics import Metrics
from userproxy.tests.waiting import until
from userproxy.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from userproxy.model.snapshot import Notice, Problem, Snapshot
    from userproxy.tests.control.rig.node import ControlSide


class InMemorySource:
    """A source that says what a test has it say.

    Attributes:
        told: the problems that it was told of, at each reconcile.
        announced: what happened to Services.
    """

    kind = "manifests"
    problem: Problem | None = None

    def __init__(self) -> None:
        self.told: list[tuple[Problem, ...]] = []
        self.announced: list[Notice] = []
        self._news: asyncio.Queue[Snapshot] = asyncio.Queue()
        self._said = 0

    @property
    def synced(self) -> bool:
        """Of `Source`."""
        return self._said > 0

    def stale_seconds(self) -> float:
        """Of `Source`."""
        return 0.0

    def say(self, snapshot: Snapshot) -> None:
        """Publish it."""
        self._news.put_nowait(snapshot)

    async def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Of `Source`."""
        while True:
            snapshot = await self._news.get()
            self._said += 1
            publish(snapshot)

    def tell(self, problems: Sequence[Problem]) -> None:
        """Of `Source`."""
        self.told.append(tuple(problems))

    def announce(self, notice: Notice) -> None:
        """Of `Source`."""
        self.announced.append(notice)


class Program:
    """The daemon of a control side.

    Args:
        side: its parts.
        inherited: from the daemon before it.

    Attributes:
        source: what it follows.
        wrong: why the configuration cannot be read anew; None if it can.
        incumbent_name: where it listens for an heir.
        incumbent: listens there.
        is_confirmed: whether the daemon before it has been told that it is no longer needed.
    """

    def __init__(self, side: ControlSide, inherited: Handover = NOTHING) -> None:
        self.side = side
        self.source = InMemorySource()
        self.metrics = Metrics("redirect-to-host", side.counters)
        self.wrong: Exception | None = None
        ports = side.on_node.health_ports
        parts = Parts(side.config, self.source, side.sides, side.reconciler, ports, side.view, self.metrics)
        self.is_confirmed = False
        self.incumbent_name = f"userproxy-test-{secrets.token_hex(8)}"
        self.incumbent = Incumbent(self.incumbent_name)
        tenure = Tenure(inherited, self._confirm, self.incumbent, Announcer({}))
        self.daemon = Daemon(parts, tenure)
        side.sides.pod_health.on_change = self.daemon.notify

    @property
    def journal(self) -> list[str]:
        """What its neighbours were told."""
        return self.side.journal

    async def run(self) -> bool:
        """Until a signal ends it; whether it is to start anew."""
        try:
            return await self.daemon.run(self._check)
        finally:
            gc.unfreeze()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[bool]]:
        """It runs, and has started; what the test does not end is ended with SIGTERM."""
        task = asyncio.ensure_future(self.run())
        try:
            await self.noted("kernel start")
            yield task
        finally:
            if not task.done():
                signal.raise_signal(signal.SIGTERM)
            await asyncio.wait([task])

    async def noted(self, line: str, times: int = 1) -> None:
        """Wait until its neighbours have been told so."""
        await until(lambda: self.journal.count(line) >= times)

    async def asked_to_hand_over(self) -> Channel:
        """An heir asks it for the node, and has been heard; the connection to it."""
        await until(lambda: self.is_confirmed)  # from then on it listens
        visit = wire.connect(self.incumbent_name)
        assert visit is not None
        heir = Channel(visit, asyncio.get_running_loop(), lambda *_: None, lambda: None)
        heir.send(wire.encode(wire.TakeOver("9.9")))
        await until(lambda: self.daemon._handing_over)
        return heir

    def _confirm(self) -> None:
        self.is_confirmed = True

    def _check(self) -> None:
        if self.wrong is not None:
            raise self.wrong
