"""Reaches a backend for a connection: one after the other, or two at once, within the time that there is.

| what happens | then |
|---|---|
| the backend answers | it is the connection's, until that is over |
| it refuses, or has had its time | the next one that has not been tried |
| it takes long, and the Service hedges | a second one beside it (`userproxy.dataplane.tcp.hedge`) |
| the system has no socket for it | `starved`, and another go at it later; no backend is blamed |
| none is left, or the time for all is over | the connection ends |
| the Service has none at all, and holds its clients | it waits, and then begins anew |
"""

from __future__ import annotations

import errno
import math
import os
import socket as net
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from userproxy.dataplane.tcp.hedge import Hedge
from userproxy.dataplane.tcp.lifecycle import DialBudget, Event
from userproxy.model.records import GIVEN_UP, MOST_ATTEMPTS, Attempt
from userproxy.net.poller import ERROR, HANGUP, WRITE, Watch
from userproxy.net.sockets import OUT_OF_RESOURCES, dialling_socket, reset_on_close

if TYPE_CHECKING:
    import asyncio
    from _socket import socket
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.dataplane.tcp.relay import Leg
    from userproxy.dataplane.tcp.sources import Sources
    from userproxy.net.poller import Poller

log = structlog.get_logger(__name__)

# How often dials are looked at: their time is kept to within this many seconds.
_TICK_SECONDS = 0.05


class Dialler(Protocol):
    """Who needs a backend.

    Attributes:
        number: unique while the daemon lives.
        service: whose backends they are.
        peer: the client's IP and port.
        opened: when the client was accepted, in monotonic time.
        client_leg: what the client has said already goes to the backend with the handshake; None once it is
            over.
    """

    number: int
    service: LiveService
    peer: tuple[str, int]
    opened: float
    client_leg: Leg | None

    def open(self) -> None:
        """Have another go at it, now that there may be resources."""
        ...

    def dialled(self, event: Event) -> None:
        """What came of it: `CONNECTED` or `DIAL_FAILED`."""
        ...

    def abort(self) -> None:
        """Give everything up."""
        ...


class Dialling(NamedTuple):
    """What all dials share.

    Attributes:
        poller: of the sockets.
        waiting: looks after those that wait for a backend to answer.
        starved: called with each that cannot dial, since the system has no resources for another socket, and
            why; `open` has it try again.
        sources: lends clients' addresses to those whose Service asks for it.
        budget: the time for reaching a backend.
    """

    poller: Poller
    waiting: Watch[Dial]
    starved: Callable[[Dialler, OSError], None]
    sources: Sources
    budget: DialBudget = DialBudget()


def dialling(
    loop: asyncio.AbstractEventLoop,
    poller: Poller,
    starved: Callable[[Dialler, OSError], None],
    sources: Sources,
) -> Dialling:
    """What all dials on an event loop share."""
    return Dialling(poller, Watch(loop, _TICK_SECONDS, Dial.look), starved, sources)


class Dial:
    """The way to a backend, and to no more than one in the end. Lives as long as its connection.

    Args:
        owner: who needs the backend.
        shared: what all dials share.

    Attributes:
        backend: that is dialled, or has answered; None before and between. It counts one more connection.
        sock: the socket to it.
        connected: when it answered, in monotonic time; 0 before.
        kept: the IP that it sees that come from, if that is the client's own; else empty.
        left_out: how many dials came to nothing that `attempts` does not have.
    """

    __slots__ = (
        "_attempts",
        "_began",
        "_ends",
        "_hedge",
        "_hedge_at",
        "_owner",
        "_shared",
        "_since",
        "_tried",
        "backend",
        "connected",
        "kept",
        "left_out",
        "sock",
    )

    def __init__(self, owner: Dialler, shared: Dialling) -> None:
        self.backend: LiveBackend | None = None
        self.sock: socket | None = None
        self.kept = ""
        self._owner = owner
        self._shared = shared
        self._since = owner.opened
        self._began = self._ends = self.connected = 0.0
        self._attempts: tuple[Attempt, ...] = ()
        self.left_out = 0
        self._tried: tuple[LiveBackend, ...] = ()
        self._hedge: Hedge | None = None
        self._hedge_at = math.inf

    def next(self) -> Event | None:
        """Dial the next backend; returns what came of it if that is known at once."""
        owner, shared = self._owner, self._shared
        service, now = owner.service, shared.poller.clock()
        seconds = shared.budget.next_attempt(now - self._since)
        backend = service.pick(owner.peer[0], self._tried) if seconds > 0 else None
        if backend is None:
            if service.holds:
                return Event.NO_ENDPOINTS
            return Event.BACKENDS_EXHAUSTED if self._tried else Event.NO_BACKEND
        if self._tried:
            service.retry(self._tried[-1])
        self.backend = backend
        backend.connections += 1
        self._began = now
        self._ends = now + seconds
        try:
            self.sock = sock = dialling_socket(backend.address)
            reset_on_close(sock)
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                return self._failed(error.errno or errno.EIO)
            self._drop()
            shared.starved(owner, error)
            return None
        self.kept = shared.sources.lend(owner.peer[0], service, backend.address)
        try:
            outcome = self._connect(sock, backend)
        finally:  # or whoever is dialled next would be this client's
            if self.kept:
                shared.sources.take_back(self.kept)
        if outcome == errno.EALREADY:
            shared.poller.register(sock.fileno(), WRITE, self)
            shared.waiting.add(owner.number, self)
            patience = service.pool.settings.hedged_dial
            self._hedge_at = math.inf if patience is None else now + patience
            return None
        return Event.CONNECTED if outcome == 0 else self._failed(outcome)

    def _connect(self, sock: socket, backend: LiveBackend) -> int:
        """Connect; returns an errno: 0 if it is done, EALREADY if it takes time.

        To a pod on this node the handshake is over before connect() returns, although that says EINPROGRESS.
        To try at once what comes next saves a round through the poller.
        """
        client = self._owner.client_leg
        if client is None or not client.holds:
            outcome = sock.connect_ex(backend.sockaddr)
            return sock.connect_ex(backend.sockaddr) if outcome == errno.EINPROGRESS else outcome
        # The last ACK of the handshake goes with the first bytes instead of alone. Once connected, the kernel
        # acknowledges at once again (tcp_rcv_synsent_state_process in net/ipv4/tcp_input.c).
        sock.setsockopt(net.IPPROTO_TCP, net.TCP_QUICKACK, 0)
        outcome = sock.connect_ex(backend.sockaddr)
        if outcome != errno.EINPROGRESS:
            return outcome
        try:
            client.hand_on(sock.fileno())
        except BlockingIOError:
            return errno.EALREADY
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    @property
    def seconds(self) -> float:
        """How long the dial took that was answered."""
        return self.connected - self._began

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The dials that came to nothing, and those under way."""
        found = self._attempts
        if not self.connected and self.backend is not None:
            found = (*found, self._attempt(self.backend, self._began, GIVEN_UP))
        hedge = self._hedge
        return found if hedge is None else (*found, self._attempt(hedge.backend, hedge.began, GIVEN_UP))

    def begin_anew(self) -> None:
        """Forget what was tried: the time for dialling begins now."""
        self._since = self._shared.poller.clock()
        self._tried = ()

    def answered(self) -> bool:
        """The backend has answered: wait for nothing else. Returns whether the poller has its socket."""
        owner, shared = self._owner, self._shared
        if self._hedge is not None:
            self._leave_hedge()
        self.connected = now = shared.poller.clock()
        if self.backend is not None:
            owner.service.dial_answered(self.backend, now - self._began)
        return shared.waiting.members.pop(owner.number, None) is not None

    def on_ready(self, mask: int) -> None:
        """The poller's call: the backend answered, or refused."""
        if mask & (ERROR | HANGUP):
            sock = self.sock
            assert sock is not None  # noqa: S101 (registered, hence there)
            self._report(self._failed(sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)))
        else:
            self._owner.dialled(Event.CONNECTED)

    def abort(self) -> None:
        """`on_ready` or `look` raised."""
        self._owner.abort()

    def look(self) -> None:
        """Give a backend up that has had its time, and dial another one beside one that takes long."""
        now, hedge = self._shared.poller.clock(), self._hedge
        if hedge is not None and now >= hedge.ends:
            self.hedge_failed(errno.ETIMEDOUT)
        if now >= self._ends:
            self._report(self._failed(errno.ETIMEDOUT))
        elif now >= self._hedge_at:
            self._hedge_at = math.inf
            self._dial_beside()

    def leave(self) -> None:
        """Let go of the backend, or stop looking for one: the connection is over."""
        self._shared.waiting.members.pop(self._owner.number, None)
        if self._hedge is not None:
            self._leave_hedge()
        self._drop()
        del self._owner  # no cycles: reference counts free it all, at once

    def _dial_beside(self) -> None:
        owner, shared, first = self._owner, self._shared, self.backend
        seconds = shared.budget.next_attempt(shared.poller.clock() - self._since)
        tried = self._tried if first is None else (*self._tried, first)
        backend = owner.service.pick(owner.peer[0], tried) if seconds > 0 else None
        if backend is None:
            return
        try:
            self._hedge = Hedge(shared.poller, self, backend, seconds)
        except OSError:  # no socket for it: the first dial goes on, and may be answered yet
            return
        owner.service.counters.retried_dials["hedged"] += 1
        hedge = self._hedge
        hedge.kept = shared.sources.lend(owner.peer[0], owner.service, backend.address)
        try:
            error = hedge.dial()
        finally:
            if hedge.kept:
                shared.sources.take_back(hedge.kept)
        if error:
            self.hedge_failed(error)

    def hedge_answered(self) -> None:
        """The second dial's report: it is faster than the first."""
        if self.backend is not None:
            self._note(self.backend, self._began, GIVEN_UP)
        self._drop()
        self._promote_hedge()
        self._owner.dialled(Event.CONNECTED)

    def hedge_failed(self, error: int) -> None:
        """The second dial's report: nobody is there."""
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            self._tried = (*self._tried, hedge.backend)
            self._note(hedge.backend, hedge.began, error)
            self._owner.service.dial_failed(hedge.backend, error, judged=not hedge.kept)
            hedge.leave()

    def _promote_hedge(self) -> None:
        hedge, self._hedge = self._hedge, None
        assert hedge is not None  # noqa: S101 (asked before)
        self.backend, self.sock, self.kept = hedge.backend, hedge.sock, hedge.kept
        self._began, self._ends = hedge.began, hedge.ends
        self._shared.poller.hand_over(hedge.sock.fileno(), WRITE, self)

    def _leave_hedge(self) -> None:
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            self._note(hedge.backend, hedge.began, GIVEN_UP)
            hedge.leave()

    def _failed(self, error: int) -> Event | None:
        """This backend cannot be reached; returns the event, unless another one is being dialled already."""
        backend, service = self.backend, self._owner.service
        if backend is not None:
            log.debug(
                "dial failed",
                service=str(service.pool.service),
                backend=str(backend.address),
                error=os.strerror(error),
            )
            self._tried = (*self._tried, backend)
            self._note(backend, self._began, error)
            service.dial_failed(backend, error, judged=not self.kept)
        self._drop()
        if self._hedge is not None:
            self._promote_hedge()
            return None
        self._shared.waiting.members.pop(self._owner.number, None)
        return Event.DIAL_FAILED

    def _note(self, backend: LiveBackend, began: float, error: int) -> None:
        kept = self._attempts
        if len(kept) >= MOST_ATTEMPTS:
            kept = kept[:-1]
            self.left_out += 1
        self._attempts = (*kept, self._attempt(backend, began, error))

    def _attempt(self, backend: LiveBackend, began: float, error: int) -> Attempt:
        seconds = self._shared.poller.clock() - began
        return Attempt(backend.address, began - self._owner.opened, seconds, error)

    def _report(self, event: Event | None) -> None:
        if event is not None:
            self._owner.dialled(event)

    def _drop(self) -> None:
        if self.sock is not None:
            self._shared.poller.close(self.sock)
            self.sock = None
        if self.backend is not None:
            self.backend.connections -= 1
            self.backend = None
