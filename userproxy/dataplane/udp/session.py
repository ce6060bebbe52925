"""A client's session: a connected socket to one backend, which becomes another one's where that is gone.

| what happens | then |
|---|---|
| a datagram from the client | it goes to the backend |
| the backend is no endpoint any more | that datagram goes to the next one, and so does all that follows |
| the backend refuses (ICMP), or cannot be reached | what it has not answered goes to the next one, at once |
| all that were tried refuse | it is lost, as it would be on a network; the client's next one begins anew |
| an answer | it goes to the client, from the address that the client asked |
| as many answers as questions, where the Service has short sessions | it is over |

The socket is connected, so the kernel lets nobody but the backend answer. Where a datagram cannot be sent at
once, because a buffer is full, it is dropped as a router would: nobody is held up.
"""

from __future__ import annotations

import errno
import os
import socket as net
from _socket import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from userproxy.dataplane.udp.lifecycle import State
from userproxy.dataplane.udp.unanswered import Room, Unanswered
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.heritage import SessionState
from userproxy.model.records import Attempt
from userproxy.net.poller import READ
from userproxy.net.sockets import OUT_OF_RESOURCES

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.dataplane.connections import ConnectionTable
    from userproxy.dataplane.tcp.lifecycle import Event
    from userproxy.dataplane.udp.sessions import Peer, Sessions
    from userproxy.model.counters import Counters
    from userproxy.model.records import Facts
    from userproxy.net.poller import Poller, Watch

log = structlog.get_logger(__name__)

# Answers passed on in one go: others wait for theirs meanwhile.
_BURST = 8

# Backends that a datagram is sent to before it is given up.
_MOST_TRIED = 8

# A refusal would have come by then.
HEARD_SECONDS = 1.0

_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_KIND = net.SOCK_DGRAM | net.SOCK_NONBLOCK | net.SOCK_CLOEXEC


class ClientSide(Protocol):
    """The listener that a session's client asks.

    Attributes:
        short: whether a session is over when each question has its answer.
    """

    short: bool

    def answer(self, datagram: memoryview, peer: Peer) -> None:
        """Send an answer to a client."""

    def starved(self, session: Session) -> None:
        """This process may open no more files, and this session needs one."""

    def expire(self, now: float) -> None:
        """End the sessions of which nothing was heard for long enough."""


class Shared(NamedTuple):
    """What all sessions share.

    Attributes:
        poller: of their sockets.
        sessions: all of them.
        table: of all that an operator sees, sessions among them.
        ended: called with each when it is over.
        counters: of this process.
        room: for what has not been answered.
        buffer: for a datagram on its way.
        unheard: looks after those whose backend has refused before, and does not now.
    """

    poller: Poller
    sessions: Sessions[ClientSide, Session]
    table: ConnectionTable
    ended: Callable[[Session], None]
    counters: Counters
    room: Room
    buffer: memoryview
    unheard: Watch[Session]


class Session:
    """One client at one listener.

    Attributes:
        number: unique while the daemon lives.
        service: whose traffic it is.
        peer: the client's address, as the kernel gives it.
        opened: when its first datagram came, in monotonic time.
        last_active: when a datagram moved last, likewise.
        backend: where it goes; None while there is none.
        reason: why it ended; None while it lives.
        bytes_up: from the client.
        bytes_down: from backends.
        asked: datagrams from the client.
        answered: datagrams from backends.
    """

    __slots__ = (
        "_attempts",
        "_first_answer",
        "_listener",
        "_sent_at",
        "_shared",
        "_sock",
        "_tried",
        "_unanswered",
        "answered",
        "asked",
        "backend",
        "bytes_down",
        "bytes_up",
        "last_active",
        "number",
        "opened",
        "peer",
        "reason",
        "service",
    )

    def __init__(
        self, number: int, shared: Shared, listener: ClientSide, service: LiveService, peer: Peer
    ) -> None:
        self.number = number
        self.service = service
        self.peer = peer
        self.opened = self.last_active = shared.poller.now
        self.backend: LiveBackend | None = None
        self.reason: Reason | None = None
        self.bytes_up = self.bytes_down = 0
        self.asked = self.answered = 0
        self._shared = shared
        self._listener = listener
        self._sock: socket | None = None
        self._sent_at = 0.0  # to this backend first, in monotonic time; 0: it has answered
        self._tried: tuple[LiveBackend, ...] = ()
        self._attempts: tuple[Attempt, ...] = ()
        self._first_answer: float | None = None
        self._unanswered = Unanswered(shared.room)
        service.enter(peer[0])

    @property
    def state(self) -> State:
        """How far it is."""
        return State.REPLIED if self.answered else State.UNREPLIED

    @property
    def client(self) -> Address:
        """The client's address."""
        return Address(*self.peer[:2])

    @property
    def frontend(self) -> Address | None:
        """The original destination. A worker cannot tell: the kernel says it of connections alone."""
        return None

    @property
    def source(self) -> Address | None:
        """Our own address on the backend's side, while there is one."""
        return None if self._sock is None else Address(*self._sock.getsockname()[:2])

    def facts(self) -> Facts:
        """What it tells of itself now. Of many refusals only the last are known."""
        first, sock, backend = self._first_answer, self._sock, self.backend
        first_up = 0.0 if self.asked else None
        first_down = None if first is None else first - self.opened
        times = (None, None, first_up, first_down, None, False)
        return (
            self.peer[:2],
            None,
            None if sock is None else sock.getsockname()[:2],
            None if backend is None else backend.address,
            self.bytes_up,
            self.bytes_down,
            self.reason,
            self.state,
            (self._attempts, *times, self.asked, self.answered, 0),
        )

    def equip(self) -> bool:
        """There is nothing that it needs."""
        return True

    def forward(self, datagram: memoryview) -> None:
        """Send the client's datagram on."""
        now = self._used()
        self.asked += 1
        self.bytes_up += len(datagram)
        self._tried = ()
        backend = self.backend
        if backend is not None and backend.removed is not None:
            self._leave()
        self._unanswered.keep(bytes(datagram), now)
        self._send([datagram])

    def on_ready(self, _mask: int) -> None:
        """The poller's call: the backend answered, or refused."""
        shared, listener = self._shared, self._listener
        buffer = shared.buffer
        for _ in range(_BURST):
            sock = self._sock
            if sock is None:
                return
            try:
                count = sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._refused(error.errno or errno.EIO)
                self._send(self._unanswered.all())
                return
            self._answered(count)
            listener.answer(buffer[:count], self.peer)
            if listener.short and self.answered >= self.asked:
                self.finish(Reason.ANSWERED)
                return

    def abort(self) -> None:
        """Give it up: something failed that never should."""
        self.finish(Reason.FAILED)

    def end(self, event: Event) -> None:
        """End it from outside, for a reason of this name."""
        self.finish(Reason(event.value))

    def finish(self, reason: Reason) -> None:
        """It is over."""
        if self.reason is not None:
            return
        self.reason = reason
        shared = self._shared
        shared.unheard.members.pop(self.number, None)
        shared.sessions.remove(self._listener, self)
        self._unanswered.clear()
        self.service.leave(self.peer[0])
        try:
            shared.ended(self)
        finally:
            self._leave()

    def listen_to(self) -> None:
        """Its backend has refused before, to others too: tell if it does not do so any more."""
        backend = self.backend
        now = self._shared.poller.clock()
        if backend is None or not self._sent_at or now - self._sent_at >= HEARD_SECONDS:
            self._shared.unheard.members.pop(self.number, None)
            if backend is not None and self._sent_at:
                self.service.not_refused(backend)

    def as_state(self, now: float) -> SessionState | None:
        """What another worker must know to go on with it; None if it has no backend now."""
        if self.backend is None:
            return None
        return SessionState(
            pool=self.service.pool.name,
            client=self.client,
            backend=self.backend.address,
            age=now - self.opened,
            idle=now - self.last_active,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            asked=self.asked,
            answered=self.answered,
        )

    def take_over(self, sock: socket, state: SessionState) -> None:
        """Go on with a session of another worker, and its socket."""
        now = self._shared.poller.clock()
        self.opened, self.last_active = now - state.age, now - state.idle
        self.bytes_up, self.bytes_down = state.bytes_up, state.bytes_down
        self.asked, self.answered = state.asked, state.answered
        self._sock, self.backend = sock, self.service.known(state.backend)
        self.backend.connections += 1
        self._shared.poller.register(sock.fileno(), READ, self)
        self._shared.table.traffic.inherited(self)

    def hand_over(self) -> socket | None:
        """Give up the socket, for another worker to go on with; None if there is none. It is over here."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._shared.poller.unregister(sock.fileno())  # the other process has the same one
        self.finish(Reason.HANDED_OVER)
        return sock

    def _used(self) -> float:
        """It is used right now; returns the time."""
        self.last_active = now = self._shared.poller.now
        self._shared.sessions.touch(self._listener, self)
        return now

    def _answered(self, count: int) -> None:
        now = self._used()
        if not self.answered:
            self._first_answer = now
        self.answered += 1
        self.bytes_down += count
        self._unanswered.clear()
        if self._sent_at and self.backend is not None:
            self.service.dial_answered(self.backend, now - self._sent_at)
            self._sent_at = 0.0

    def _send(self, datagrams: list[bytes] | list[memoryview]) -> None:
        """Send these to the backend, or to another one where it cannot be reached."""
        while self._sock is not None or self._reach():
            sock = self._sock
            assert sock is not None  # noqa: S101 (reached just now)
            try:
                for datagram in datagrams:
                    sock.send(datagram)
            except OSError as error:
                number = error.errno or errno.EIO
                if number in _NO_ROOM or number == errno.EMSGSIZE:
                    self._lost("too-long" if number == errno.EMSGSIZE else "buffer-full")
                    return
                # It may be what a former datagram met; then this one was not sent at all.
                self._refused(number)
                datagrams = self._unanswered.all() or datagrams
            else:
                return

    def _reach(self) -> bool:
        """Have a socket to the next backend; whether there is one."""
        shared, service = self._shared, self.service
        backend = service.pick(self.peer[0], self._tried) if len(self._tried) < _MOST_TRIED else None
        if backend is None:
            self._lost("no-backend")
            self._unanswered.clear()
            return False
        if self._tried:
            service.retry(self._tried[-1])
        sock = None
        try:
            sock = socket(net.AF_INET6 if backend.address.is_ipv6 else net.AF_INET, _KIND)
            sock.connect(backend.sockaddr)
        except OSError as error:
            if sock is not None:
                sock.close()
            return self._not_reached(backend, error)
        self._sock, self.backend = sock, backend
        backend.connections += 1
        self._sent_at = shared.poller.now
        shared.poller.register(sock.fileno(), READ, self)
        if backend.outlier.failures:
            shared.unheard.add(self.number, self)
        return True

    def _not_reached(self, backend: LiveBackend, error: OSError) -> bool:
        if error.errno in OUT_OF_RESOURCES:
            self._listener.starved(self)
            self._lost("out-of-files")
            return False
        self._note_refusal(backend, error.errno or errno.EIO)
        return self._reach()

    def _refused(self, error: int) -> None:
        backend = self.backend
        if backend is not None:
            log.debug(
                "a datagram was refused",
                service=str(self.service.pool.service),
                backend=str(backend.address),
                error=os.strerror(error),
            )
            self._note_refusal(backend, error)
        self._leave()

    def _note_refusal(self, backend: LiveBackend, error: int) -> None:
        now, began = self._shared.poller.now, self._sent_at or self.last_active
        attempt = Attempt(backend.address, began - self.opened, now - began, error)
        self._attempts = (*self._attempts[1 - _MOST_TRIED :], attempt)
        self._tried = (*self._tried, backend)
        self.service.dial_failed(backend, error)

    def _leave(self) -> None:
        """Let go of the backend."""
        if self._sock is not None:
            self._shared.poller.close(self._sock)
            self._sock = None
        if self.backend is not None:
            self.backend.connections -= 1
            self.backend = None

    def _lost(self, why: str) -> None:
        self._shared.counters.datagrams_dropped[why] += 1
