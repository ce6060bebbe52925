"""Service ports as the data side knows them: which backend is picked, and what is counted."""

from __future__ import annotations

import errno
import math
import random
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from userproxy.backends.affinity import Affinity
from userproxy.backends.backend import LiveBackend
from userproxy.backends.balancer import Balancer, make_balancer, warmth
from userproxy.backends.rotation import Rotation, may_eject, rotate
from userproxy.model.counters import Counters
from userproxy.model.counts import ServiceCount
from userproxy.model.records import DIAL_ERRORS
from userproxy.model.settings import Balance, HealthCheck, NoEndpoints
from userproxy.model.state import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from userproxy.model.address import Address
    from userproxy.model.state import Pool

log = structlog.get_logger(__name__)

# These say that this process or node is short of something, and nothing of the backend.
_OUR_OWN = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN, errno.EPERM}
)
# Between two looks for a backend to probe, while checks speak against those whose time has come.
_PROBE_PAUSE = 0.5


class LiveService:
    """One Service port whose backends are chosen here.

    Args:
        pool: its backends, and how they are chosen.
        counters: of this process.
        place: of this process among those that serve it, from 0, and their number.
        draw: a number at random, at least 0 and below 1.
        clock: monotonic seconds.

    Attributes:
        pool: its backends, and how they are chosen, as told last.
        on_failure: called with itself and a backend that a client could not reach.
        on_change: called with itself when a backend has gone down or come back.
        on_pin: called with itself when a client was pinned, and others are to hear of it.
        balancer: whose turn it is.
        rotation: who may be picked, and who is tried last.
        connections: how many live connections it has.
        retired: it is served no longer; there may still be connections.
        used: when a backend was picked last, in monotonic time.
        counters: of this process.
        affinity: where clients are pinned to.
    """

    def __init__(
        self,
        pool: Pool,
        place: tuple[int, int] = (0, 1),
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = monotonic,
        counters: Counters | None = None,
    ) -> None:
        self.pool = pool
        self.connections = 0
        self.used = -math.inf
        self.counters = Counters() if counters is None else counters
        self.affinity = Affinity()
        self._clients: dict[str, int] = {}
        self.retired = False
        self.on_failure: Callable[[LiveService, LiveBackend], object] | None = None
        self.on_change: Callable[[LiveService], object] | None = None
        self.on_pin: Callable[[LiveService], object] | None = None
        self._place = place
        self._draw = draw
        self._clock = clock
        self._near: tuple[LiveBackend, ...] = ()
        self._far: tuple[LiveBackend, ...] = ()
        self._departed: dict[Address, LiveBackend] = {}
        self._warm = -math.inf
        self._next_probe = math.inf
        self._supposed: tuple[LiveBackend, ...] = ()
        self.balancer: Balancer[LiveBackend] = make_balancer(self._balance_of(pool), draw)
        self.rotation: Rotation[LiveBackend] = rotate((), ())
        self._take_over(pool, -math.inf)

    @property
    def backends(self) -> tuple[LiveBackend, ...]:
        """All that it has: the near ones, and then the far ones."""
        return self._near + self._far

    @property
    def is_full(self) -> bool:
        """Whether it has as many connections as its author allows: each process has its part of them."""
        most = self.pool.settings.max_connections
        if most is None:
            return False
        index, count = self._place
        return self.connections >= most // count + (index < most % count)

    def is_full_for(self, client: str) -> bool:
        """Whether a client IP has as many connections as the author allows each."""
        most = self.pool.settings.max_connections_per_client
        return most is not None and self._clients.get(client, 0) >= most

    @property
    def holds(self) -> bool:
        """Whether its clients wait for a backend: it has none at all, and its author wants it so."""
        return (
            not (self._near or self._far)
            and self.pool.settings.no_endpoints is NoEndpoints.HOLD
            and not self.retired
        )

    @property
    def places(self) -> int:
        """How many clients may wait here for a backend: each process has its part, rounded up."""
        return -(-self.pool.settings.hold_connections // self._place[1])

    def enter(self, client: str) -> None:
        """A client IP has one more connection."""
        self.connections += 1
        self._clients[client] = self._clients.get(client, 0) + 1

    def leave(self, client: str) -> None:
        """One of a client IP's connections is over."""
        self.connections -= 1
        left = self._clients[client] - 1
        if left:
            self._clients[client] = left
        else:
            del self._clients[client]

    def find(self, address: Address) -> LiveBackend | None:
        """The backend at an address, if the Service has it."""
        return next((live for live in self.backends if live.address == address), None)

    def known(self, address: Address) -> LiveBackend:
        """The backend at an address, for a session that another worker had there: it may have left since."""
        live = self.find(address) or self._departed.get(address)
        if live is None:
            now = self._clock()
            live = self._departed[address] = LiveBackend(Backend(address), now, now)
            live.removed = None if address in self.pool.leaving else now
        return live

    def uses(self, live: LiveBackend) -> bool:
        """Whether connections go to a backend, or would if it were well."""
        return live in self._near or live in self.rotation.first or live.in_doubt

    def report(self, *, judged: bool = True) -> ServiceCount:
        """What is known of it now: its connections, and each backend of which there is something to say.

        Args:
            judged: whether what dials and checks have found of the backends still counts.
        """
        now = self._clock()
        known = (*self.backends, *self._departed.values())
        return ServiceCount(
            pool=self.pool.name,
            connections=self.connections,
            backends=tuple(live.report(now, judged=judged) for live in known if live.is_known),
        )

    def update(self, pool: Pool) -> None:
        """Take over new backends and settings; backends that stay keep what is known of them."""
        if self._balance_of(pool) is not self._balance_of(self.pool):
            self.balancer = make_balancer(self._balance_of(pool), self._draw)
        if pool.affinity is None:
            self.affinity.clear()
        self._take_over(pool, self._clock())

    def _balance_of(self, pool: Pool) -> Balance:
        """Who takes the next connection. Workers must agree on whom a client is pinned to at its first."""
        several_workers = self._place[1] > 1
        return Balance.SOURCE_HASH if pool.affinity is not None and several_workers else pool.settings.balance

    def begin_with(self, addresses: Collection[Address]) -> None:
        """Only the backends at these addresses are known to be well: the others are down until checked."""
        for live in self.backends:
            live.checked.up = live.address in addresses
        self._rearrange()

    def rearrange(self) -> None:
        """What is known of its backends has been told from elsewhere."""
        latest = max((live.came for live in self.backends), default=-math.inf)
        self._warm = latest + (self.pool.settings.slow_start or 0.0)
        self._rearrange()

    def retire(self) -> None:
        """It is served no longer: all of its backends are gone."""
        self.retired = True
        now = self._clock()
        for live in (*self.backends, *self._departed.values()):
            if live.removed is None:
                live.removed = now

    def pick(self, client: str, tried: tuple[LiveBackend, ...]) -> LiveBackend | None:
        """The backend for a connection; None when all have been tried.

        Args:
            client: the client's IP.
            tried: those that this connection has failed to reach.
        """
        self.used = now = self._clock()
        timeout = self.pool.affinity
        if timeout is None:
            return self._pick(client, tried, now)
        pinned = self.affinity.backend_of(client, now, timeout) if not tried else None
        found = next((live for live in self.rotation.first if live.address == pinned), None)
        if found is None:
            found = self._pick(client, tried, now)
        if found is not None:
            is_news = self.affinity.pin(client, found.address, now, timeout)
            if is_news and self.on_pin is not None:
                self.on_pin(self)
        return found

    def _pick(self, client: str, tried: tuple[LiveBackend, ...], now: float) -> LiveBackend | None:
        found = None
        if now >= self._next_probe and not tried:
            found = self._probe(client, now)
        if found is None:
            weigh = self._weigher(now) if now < self._warm else None
            found = self.balancer.pick(tried, client, weigh)
        if found is None:
            found = next((live for live in self.rotation.last if live not in tried), None)
        return found

    def retry(self, live: LiveBackend) -> None:
        """A client that could not reach a backend tries another one."""
        self.counters.retried_dials[_kind(live.error)] += 1

    def dial_failed(self, live: LiveBackend, error: int, *, judged: bool = True) -> None:
        """A client's dial of a backend failed.

        Args:
            live: the backend.
            error: the errno.
            judged: whether that says something of the backend; otherwise it may concern that client alone.
        """
        live.error = error
        self.counters.failed_dials[_kind(error)] += 1
        if error in _OUR_OWN:
            return
        if not judged:
            if self.on_failure is not None:
                self.on_failure(self, live)
            return
        now = self._clock()
        was_probe_until = live.outlier.until
        if live.outlier.failed(now, timed_out=error == errno.ETIMEDOUT) and may_eject(self.backends):
            live.outlier.eject(now)
            self._changed(live, now)
        elif live.outlier.until != was_probe_until:
            self._rearrange()
        if self.on_failure is not None:
            self.on_failure(self, live)

    def dial_answered(self, live: LiveBackend, seconds: float) -> None:
        """A client's dial of a backend was answered after so many seconds."""
        live.latency = seconds
        self.counters.dial_seconds.observe(seconds)
        self.not_refused(live)

    def not_refused(self, live: LiveBackend) -> None:
        """A client's datagram to a backend was not refused, though it may never be answered."""
        if live.outlier.failures and live.outlier.succeeded(self._clock()):
            self._came_back(live)

    def take_check(self, live: LiveBackend, failure: str, seconds: float) -> None:
        """Take in the outcome of an active check.

        Args:
            live: the backend.
            failure: why it failed; empty if it passed.
            seconds: that it took.
        """
        check = self.pool.settings.check
        changed = live.checked.take(failure, check)
        if not failure:
            live.latency = seconds
            if live.ejected and live.checked.passed >= check.rise:
                changed = live.outlier.succeeded(self._clock()) or changed
        if not changed:
            return
        if failure:
            self._changed(live, self._clock())
        else:
            self._came_back(live)

    def forget_checks(self) -> None:
        """Checks are switched off: what they said last counts no more."""
        for live in self.backends:
            live.checked.forget()
        self._rearrange()

    def _take_over(self, pool: Pool, came: float) -> None:
        now = self._clock()
        known = {live.address: live for live in self.backends} | self._departed
        checks_end = pool.settings.check.kind is HealthCheck.OFF is not self.pool.settings.check.kind
        self.pool = pool
        self._near = tuple(self._live(known, backend, came, now) for backend in pool.backends)
        self._far = tuple(self._live(known, backend, came, now) for backend in pool.far)
        leaving = set(pool.leaving)
        self._departed = {address: live for address, live in known.items() if live.connections}
        for address, live in self._departed.items():
            if live.removed is None and address not in leaving:
                live.removed = now
        if checks_end:
            self.forget_checks()
        self._rearrange()

    def _live(
        self, known: dict[Address, LiveBackend], backend: Backend, came: float, now: float
    ) -> LiveBackend:
        live = known.pop(backend.address, None)
        if live is None:
            self._warm = max(self._warm, came + (self.pool.settings.slow_start or 0.0))
            return LiveBackend(backend, came, now)
        live.backend = backend
        live.removed = None
        return live

    def _probe(self, client: str, now: float) -> LiveBackend | None:
        wanted = False
        for live in self.backends:
            if live.outlier.may_be_probed(now) and not live.down and not live.checked.failed:
                among = self._if_well()
                if live in among:
                    if self.balancer.may_probe(client, live, among):
                        live.outlier.begin_probe(now)
                        self._rearrange()
                        return live
                    wanted = True  # the next client may be the one
        if not wanted:
            self._next_probe = now + _PROBE_PAUSE
        return None

    def _if_well(self) -> tuple[LiveBackend, ...]:
        """Who would be picked from if each that is ejected were well."""
        if not self._supposed:
            near, far = self._near, self._far
            joining = (
                live for live in self.backends if live.ejected and live in rotate(near, far, live).first
            )
            self._supposed = (*self.rotation.first, *joining)
        return self._supposed

    def _came_back(self, live: LiveBackend) -> None:
        now = self._clock()
        live.came = now
        slow_start = self.pool.settings.slow_start
        if slow_start is not None:
            self._warm = now + slow_start
        self._changed(live, now)

    def _weigher(self, now: float) -> Callable[[LiveBackend], float]:
        slow_start = self.pool.settings.slow_start or 0.0
        return lambda live: warmth(now - live.came, slow_start)

    def _changed(self, live: LiveBackend, now: float) -> None:
        live.changed = now
        condition = live.condition(now)
        self.counters.backend_changes[condition.state] += 1
        self._rearrange()
        log.info(
            "backend changed",
            service=str(self.pool.service),
            backend=str(live.address),
            state=condition.state,
            reason=condition.reason,
            panic=self.rotation.panic,
        )
        if self.on_change is not None:
            self.on_change(self)

    def _rearrange(self) -> None:
        self.rotation = rotate(self._near, self._far)
        self._supposed = ()
        if self.balancer.candidates != self.rotation.first:
            self.balancer.update(self.rotation.first)
        self._next_probe = min(self._probe_times(), default=math.inf)

    def _probe_times(self) -> Iterator[float]:
        return (live.outlier.until for live in self.backends if live.ejected)


def _kind(error: int) -> str:
    return DIAL_ERRORS.get(error, "other")
