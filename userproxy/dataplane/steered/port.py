"""A Service port that is steered, and its connections."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from userproxy.model.records import MOST_ATTEMPTS, Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.model.address import Address
    from userproxy.model.endings import Reason
    from userproxy.model.state import Steer

_MOST_PASSED_OVER = 8


class Port:
    """A Service port. Lives as long as it is steered, or has a connection.

    Args:
        service: its backends.
        steer: what is wanted of it.

    Attributes:
        service: its backends.
        steer: what is wanted of it.
        places: by backend, the index that the kernel knows it by; not those that it is being told of.
        waiting: packets that are held until there are endpoints, in the order of their coming.
        label: the Service port's name, as the counters have it.
        listed: whether the connections are known that it had before it was steered here.
        told: when it was said last that clients wait, in monotonic time.
    """

    __slots__ = ("label", "listed", "places", "service", "steer", "told", "waiting")

    def __init__(self, service: LiveService, steer: Steer) -> None:
        self.service = service
        self.steer = steer
        self.places: dict[LiveBackend, int] = {}
        self.waiting: dict[bytes, Carried] = {}
        self.listed = False
        self.told = 0.0
        self.label = str(steer.service)
        self.arrange()

    @property
    def can_count(self) -> bool:
        """Whether limits can be kept here: while they cannot, they are the rules'."""
        settings = self.service.pool.settings
        return self.listed or (settings.max_connections, settings.max_connections_per_client) == (None, None)

    def update(self, steer: Steer) -> None:
        """Take over new backends and settings."""
        self.steer = steer
        self.service.update(steer)
        self.arrange()

    def arrange(self) -> None:
        """Number the backends, but for those of whose index the kernel is being told."""
        moving = frozenset(self.steer.moving)
        self.places = {live: place for place, live in enumerate(self.service.backends) if place not in moving}

    def pick(self, client: str, tried: tuple[LiveBackend, ...], now: float) -> LiveBackend | None:
        """The backend for a connection; None when all have been tried.

        Where it is not to be named yet, the rules choose: whoever is new is pinned to whom they choose.
        """
        is_new = bool(self.steer.moving) and not self._knows(client, now)
        live = self.service.pick(client, tried)
        if is_new and live not in self.places:
            self.service.affinity.forget(client)
        return live

    def instead_of(
        self, live: LiveBackend, carried: Carried, is_in_doubt: Callable[[LiveBackend], bool], now: float
    ) -> tuple[LiveBackend, ...]:
        """The backend that a connection goes to rather than wait to see how this one is: the last of these.

        Those before it were passed over, as they are in doubt too. It is this one if there is no other, or
        the client would find nothing at another of what it left here.
        """
        service = self.service
        passed_over: tuple[LiveBackend, ...] = (live,)
        if service.pool.affinity is not None or service.balancer.is_bound_to_clients:
            return passed_over
        while len(passed_over) <= _MOST_PASSED_OVER:
            found = self.pick(carried.client, carried.tried + passed_over, now)
            if found is None or found not in service.rotation.first:
                break
            if not is_in_doubt(found):
                return *passed_over, found
            passed_over += (found,)
        return (live,)

    def follow(self, client: str, backend: Address, now: float) -> None:
        """The rules have chosen for a client: it keeps that pod, unless it is known to have another one."""
        service, timeout = self.service, self.service.pool.affinity
        if timeout is None or self._knows(client, now):
            return
        if service.affinity.pin(client, backend, now, timeout) and service.on_pin is not None:
            service.on_pin(service)

    def _knows(self, client: str, now: float) -> bool:
        """Whether a client is pinned to a backend."""
        timeout = self.service.pool.affinity
        return timeout is not None and self.service.affinity.backend_of(client, now, timeout) is not None


class Carried:
    """One connection, from its first packet until it is over.

    Attributes:
        flow: its key.
        port: whose it is.
        client: the client's IP.
        sequence: that its first packet begins with; None if nobody has seen that here.
        live: its backend, on which it is counted; None while it has none.
        began: when its first packet came, or it was found, in monotonic time.
        reason: why it will be over soon, if that was said beforehand.
        took: seconds that its backend took to answer; None: that is not known.
        attempts: the backends that did not answer it.
        tried: those that have failed it.
        silent: whether one of these has not answered: a packet may have been lost on its way.
        token: of the packet that is held, None if none is.
        since: when it began to be held, in monotonic time.
        sent: when a packet went on last.
        answered: whether its backend has answered.
    """

    __slots__ = (
        "answered",
        "attempts",
        "began",
        "client",
        "flow",
        "live",
        "port",
        "reason",
        "sent",
        "sequence",
        "silent",
        "since",
        "token",
        "took",
        "tried",
    )

    def __init__(self, flow: bytes, port: Port, client: str, sequence: int | None, now: float) -> None:
        self.flow = flow
        self.port = port
        self.client = client
        self.live: LiveBackend | None = None
        self.try_all(sequence)
        self.token: Token | None = None
        self.began = self.since = self.sent = now
        self.answered = False
        self.took: float | None = None
        self.reason: Reason | None = None
        self.attempts: tuple[Attempt, ...] = ()

    def enter(self, live: LiveBackend) -> None:
        """It is on this backend from now on."""
        self.live = live
        live.connections += 1
        self.port.service.enter(self.client)

    def fail(self, error: int, now: float) -> None:
        """Its backend has failed it, with this errno, and is not tried again."""
        if self.live is not None:
            if len(self.attempts) < MOST_ATTEMPTS:
                began, took = self.sent - self.began, now - self.sent
                self.attempts += (Attempt(self.live.address, began, took, error),)
            self.tried += (self.live,)
            self.silent |= error == errno.ETIMEDOUT
            self.leave()

    def try_all(self, sequence: int | None) -> None:
        """Any backend may be tried, as at the beginning."""
        self.sequence = sequence
        self.tried: tuple[LiveBackend, ...] = ()
        self.silent = False

    def leave(self) -> None:
        """It is on no backend any more."""
        live, self.live = self.live, None
        if live is not None:
            live.connections -= 1
            self.port.service.leave(self.client)


Token = tuple[int, int]
"""A packet's id and mark, by which it is answered."""
