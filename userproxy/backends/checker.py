"""Makes the active checks: of the backends that are in use here, each at its interval, and so many a second.

Services are looked over once a second. Those whose backends are to be checked get a place in a queue for
each backend; whatever changes meanwhile is noticed when its turn comes. A backend that a client could not
reach has its turn at once.
"""

from __future__ import annotations

import heapq
import random
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from userproxy.backends.check import is_due_at_all, next_interval
from userproxy.backends.probe import Probe

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.model.counters import Counters
    from userproxy.model.service import PoolName
    from userproxy.net.poller import Poller

CHECKS_A_SECOND = 200
"""For what the node relays, and once more for what netfilter carries by itself; a backend's turn comes later
where that is not enough."""

_TICK_SECONDS = 0.05
_LOOK_SECONDS = 1.0
_MOST_AT_ONCE = 200
_FIRST_WITHIN = 1.0


class Turn(NamedTuple):
    """A backend's place in the queue.

    Attributes:
        due: when it is to be checked, in monotonic time.
        number: tells turns of the same moment apart.
        service: whose backend it is.
        live: the backend.
    """

    due: float
    number: int
    service: LiveService
    live: LiveBackend


class Checker:
    """Checks the backends of Service ports. Lives as long as the data plane.

    Args:
        loop: that drives it.
        poller: of the sockets.
        services: that are served; the mapping is looked at again and again.
        counters: of this process.
        share: the part of the node's checks that this process may make.
        draw: a number at random, at least 0 and below 1.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        services: Mapping[PoolName, LiveService],
        counters: Counters,
        share: float = 1.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._counters = counters
        self._loop = loop
        self._poller = poller
        self._services = services
        self._rate = CHECKS_A_SECOND * share
        self._draw = draw
        self._numbers = count()
        self._queue: list[Turn] = []
        self._turns: dict[LiveBackend, Turn] = {}
        self._running: dict[Probe, LiveService] = {}
        self._allowance = 0.0
        self._looked = self._ticked = poller.clock()
        self._timer = loop.call_later(_LOOK_SECONDS, self._tick)

    def hasten(self, service: LiveService, live: LiveBackend) -> None:
        """A client could not reach a backend: check it now, if it is one of those that are checked."""
        turn = self._turns.get(live)
        if turn is not None and turn.due > self._poller.clock():
            self._put(self._poller.clock(), service, live)

    def stop(self) -> None:
        """Check nothing more."""
        self._timer.cancel()
        for probe in self._running:
            probe.cancel()
        self._running.clear()
        self._queue.clear()
        self._turns.clear()

    def _tick(self) -> None:
        now = self._poller.clock()
        for probe in [probe for probe in self._running if now >= probe.ends]:
            probe.expire()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._look(now)
        self._allowance = min(self._rate, self._allowance + self._rate * (now - self._ticked))
        self._ticked = now
        while self._queue and self._queue[0].due <= now and self._may_start():
            turn = heapq.heappop(self._queue)
            if self._turns.get(turn.live) is turn:  # or else it has another one
                self._take(turn, now)
        busy = self._queue or self._running
        self._timer = self._loop.call_later(_TICK_SECONDS if busy else _LOOK_SECONDS, self._tick)

    def _look(self, now: float) -> None:
        for service in self._services.values():
            if is_due_at_all(service.pool.settings.check, now, service.used):
                for live in service.backends:
                    if live not in self._turns:
                        self._put(now + self._draw() * _FIRST_WITHIN, service, live)

    def _may_start(self) -> bool:
        return self._allowance >= 1.0 and len(self._running) < _MOST_AT_ONCE

    def _put(self, due: float, service: LiveService, live: LiveBackend) -> None:
        turn = Turn(due, next(self._numbers), service, live)
        self._turns[live] = turn
        heapq.heappush(self._queue, turn)

    def _take(self, turn: Turn, now: float) -> None:
        service, live = turn.service, turn.live
        check = service.pool.settings.check
        if (
            self._services.get(service.pool.name) is not service
            or service.find(live.address) is not live
            or not is_due_at_all(check, now, service.used)
        ):
            del self._turns[live]
            return
        if not service.uses(live):
            self._put_again(service, live, now)
            return
        self._allowance -= 1.0
        probe = Probe(self._poller, live, check, self._done, self._left)
        self._running[probe] = service
        probe.start()

    def _done(self, probe: Probe, failure: str | None) -> None:
        service = self._running.get(probe)
        if service is None:
            return
        now = self._poller.clock()
        if failure is not None:
            self._counters.health_checks["failed" if failure else "passed"] += 1
            service.take_check(probe.live, failure, now - probe.began)
        self._put_again(service, probe.live, now)

    def _left(self, probe: Probe) -> None:
        self._running.pop(probe, None)

    def _put_again(self, service: LiveService, live: LiveBackend, now: float) -> None:
        check = service.pool.settings.check
        self._put(now + next_interval(check, self._draw(), in_doubt=live.in_doubt), service, live)
