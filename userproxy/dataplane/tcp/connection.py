"""One connection: carries out what its flow says, and tells it what came of it."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket as net
from typing import TYPE_CHECKING, NamedTuple

import structlog

from userproxy.dataplane.tcp.hedge import Hedge
from userproxy.dataplane.tcp.lifecycle import Command, DialBudget, Event, Flow, Reason, State
from userproxy.dataplane.tcp.relay import Leg
from userproxy.model.address import Address
from userproxy.net.poller import ERROR, HANGUP, WRITE
from userproxy.net.sockets import (
    OUT_OF_RESOURCES,
    RESET_ON_CLOSE,
    dialling_socket,
    keep_alive,
    original_destination,
)

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.dataplane.tcp.pipes import PipePool
    from userproxy.net.poller import Poller, Watch

log = structlog.get_logger(__name__)


class Context(NamedTuple):
    """What all connections share.

    Attributes:
        poller: of the relayed sockets.
        pipes: for the bytes on their way.
        dialling: looks after those that wait for a backend to answer.
        half_closed: looks after those of which one side has finished.
        ended: called with each connection when it is over.
        starved: called with each connection that cannot dial, since the system has no resources for another
            socket, and why; `open` has it try again.
        linger: seconds without a byte on a half-closed connection before it is given up.
        budget: the time for reaching a backend.
    """

    poller: Poller
    pipes: PipePool
    dialling: Watch[Connection]
    half_closed: Watch[Connection]
    ended: Callable[[Connection], None]
    starved: Callable[[Connection, OSError], None]
    linger: float = 60.0
    budget: DialBudget = DialBudget()


class Connection:
    """A client's connection, from accepted to over.

    Attributes:
        number: unique while the daemon lives.
        service: whose traffic it is.
        peer: the client's IP and port.
        backend: where it goes, or is being dialled; None before and between.
        opened: when it was accepted, in monotonic time.
    """

    __slots__ = (
        "_attempt_began",
        "_attempt_ends",
        "_backend_sock",
        "_client_sock",
        "_context",
        "_flow",
        "_hedge",
        "_hedge_at",
        "_tried",
        "backend",
        "backend_leg",
        "client_leg",
        "number",
        "opened",
        "peer",
        "service",
    )

    def __init__(
        self, number: int, context: Context, service: LiveService, client: socket, peer: tuple[str, int]
    ) -> None:
        self.number = number
        self.service = service
        self.peer = peer
        self.backend: LiveBackend | None = None
        self.opened = context.poller.clock()  # not `now`: a listener that closes accepts outside of a round
        self.client_leg: Leg | None = Leg(client, self, context.poller, context.pipes)
        self.backend_leg: Leg | None = None
        self._context = context
        self._flow = Flow()
        self._client_sock = client
        self._backend_sock: socket | None = None
        self._attempt_began = self._attempt_ends = 0.0
        self._tried: tuple[LiveBackend, ...] = ()
        self._hedge: Hedge | None = None
        self._hedge_at = math.inf
        service.enter(peer[0])

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._flow.state

    @property
    def reason(self) -> Reason | None:
        """Why it ended; None while it lives."""
        return self._flow.reason

    @property
    def bytes_up(self) -> int:
        """Bytes that came from the client."""
        return self.client_leg.received if self.client_leg else 0

    @property
    def bytes_down(self) -> int:
        """Bytes that came from the backend."""
        return self.backend_leg.received if self.backend_leg else 0

    @property
    def client(self) -> Address:
        """The client's address."""
        return Address(*self.peer)

    @property
    def frontend(self) -> Address | None:
        """The original destination; None if the kernel does not know it any more."""
        return original_destination(self._client_sock)

    @property
    def source(self) -> Address | None:
        """Our own address on the backend's leg, while there is one."""
        if self._backend_sock is None:
            return None
        return Address(*self._backend_sock.getsockname()[:2])

    @property
    def last_active(self) -> float:
        """When a byte moved last, in monotonic time."""
        if self.client_leg is None or self.backend_leg is None:
            return self.opened
        return max(self.client_leg.last_received, self.backend_leg.last_received)

    def open(self) -> None:
        """Reach a backend. Returns at once; everything further comes as events."""
        if self._flow.state is not State.CONNECTING:  # it may be over, if it had to wait for a socket
            return
        try:
            self._run(self._begin())
        except Exception:
            # The poller, which would give it up, does not know it yet.
            log.exception("a connection is given up: dialling failed")
            self.abort()

    def end(self, event: Event) -> None:
        """End it from outside: `KILLED` or `SHUTDOWN`."""
        self._run(event)

    def finished(self, leg: Leg) -> None:
        """A leg's report: its peer sends no more."""
        self._run(Event.CLIENT_FIN if leg is self.client_leg else Event.BACKEND_FIN)

    def failed(self, leg: Leg) -> None:
        """A leg's report: its socket failed."""
        self._run(Event.CLIENT_RESET if leg is self.client_leg else Event.BACKEND_RESET)

    def abort(self) -> None:
        """Give it up: something failed that never should."""
        self._context.pipes.discard()  # its bytes may still be in what the next connection would use
        self._run(Event.KILLED)

    def look_at_dial(self) -> None:
        """Give a backend up that has had its time, and dial another one beside one that takes long."""
        now, hedge = self._context.poller.clock(), self._hedge
        if hedge is not None and now >= hedge.ends:
            self.hedge_failed(errno.ETIMEDOUT)
        if now >= self._attempt_ends:
            self._run(self._dial_failed(errno.ETIMEDOUT))
        elif now >= self._hedge_at:
            self._hedge_at = math.inf
            self._dial_beside()

    def look_at_half_closed(self) -> None:
        """Give it up if the open direction carries nothing any more."""
        if self._context.poller.clock() - self.last_active >= self._context.linger:
            self._run(Event.LINGER_EXPIRED)

    def keep_alive(self) -> None:
        """Have a backend that died silently noticed. The client's socket has it from its listener."""
        if self._backend_sock is not None:
            keep_alive(self._backend_sock)

    def _run(self, event: Event | None) -> None:
        while event is not None:
            following: Event | None = None
            for command in self._flow.handle(event):
                following = _CARRY_OUT[command](self) or following
            event = following

    def _begin(self) -> Event | None:
        # Most clients speak first, and have by now: their bytes go to the backend as soon as it answers.
        client = self.client_leg
        if client is not None and not client.holds:
            client.prefetch()
        return self._dial()

    def _dial(self) -> Event | None:
        context = self._context
        now = context.poller.clock()
        seconds = context.budget.next_attempt(now - self.opened)
        backend = self.service.pick(self.peer[0], self._tried) if seconds > 0 else None
        if backend is None:
            return Event.BACKENDS_EXHAUSTED
        if self._tried:
            self.service.retry(self._tried[-1])
        self.backend = backend
        backend.connections += 1
        self._attempt_began = now
        self._attempt_ends = now + seconds
        try:
            sock = dialling_socket(backend.address)
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                return self._dial_failed(error.errno)
            self._leave_backend()
            context.starved(self, error)
            return None
        self._backend_sock = sock
        outcome = self._connect(sock, backend)
        if outcome == errno.EALREADY:
            context.poller.register(sock.fileno(), WRITE, self)
            context.dialling.add(self.number, self)
            patience = self.service.pool.settings.hedged_dial
            self._hedge_at = math.inf if patience is None else self._attempt_began + patience
            return None
        return Event.CONNECTED if outcome == 0 else self._dial_failed(outcome)

    def _connect(self, sock: socket, backend: LiveBackend) -> int:
        """Connect; returns an errno: 0 if it is done, EALREADY if it takes time.

        To a pod on this node the handshake is over before connect() returns, although that says EINPROGRESS.
        To try at once what comes next saves a round through the poller.
        """
        client = self.client_leg
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

    def on_ready(self, mask: int) -> None:
        """The poller's call while dialling: the backend answered, or refused."""
        if mask & (ERROR | HANGUP):
            sock = self._backend_sock
            assert sock is not None  # noqa: S101 (registered, hence there)
            self._run(self._dial_failed(sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)))
        else:
            self._run(Event.CONNECTED)

    def _dial_beside(self) -> None:
        context, first = self._context, self.backend
        seconds = context.budget.next_attempt(context.poller.clock() - self.opened)
        tried = self._tried if first is None else (*self._tried, first)
        backend = self.service.pick(self.peer[0], tried) if seconds > 0 else None
        if backend is None:
            return
        try:
            self._hedge = Hedge(context.poller, self, backend, seconds)
        except OSError:  # no socket for it: the first dial goes on, and may be answered yet
            return
        self.service.counters.retried_dials["hedged"] += 1
        error = self._hedge.dial()
        if error:
            self.hedge_failed(error)

    def hedge_answered(self) -> None:
        """The second dial's report: it is faster than the first."""
        self._leave_backend()
        self._promote_hedge()
        self._run(Event.CONNECTED)

    def hedge_failed(self, error: int) -> None:
        """The second dial's report: nobody is there."""
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            self._tried = (*self._tried, hedge.backend)
            self.service.dial_failed(hedge.backend, error)
            hedge.leave()

    def _promote_hedge(self) -> None:
        hedge, self._hedge = self._hedge, None
        assert hedge is not None  # noqa: S101 (asked before)
        self.backend, self._backend_sock = hedge.backend, hedge.sock
        self._attempt_began, self._attempt_ends = hedge.began, hedge.ends
        self._context.poller.hand_over(hedge.sock.fileno(), WRITE, self)

    def _dial_failed(self, error: int | None) -> Event | None:
        backend = self.backend
        if backend is not None:
            log.debug(
                "dial failed",
                service=str(self.service.pool.service),
                backend=str(backend.address),
                error=os.strerror(error or 0),
            )
            self._tried = (*self._tried, backend)
            self.service.dial_failed(backend, error or 0)
        self._leave_backend()
        if self._hedge is not None:
            self._promote_hedge()
            return None
        self._context.dialling.members.pop(self.number, None)
        return Event.DIAL_FAILED

    def _leave_hedge(self) -> None:
        if self._hedge is not None:
            self._hedge.leave()
            self._hedge = None

    def _leave_backend(self) -> None:
        if self._backend_sock is not None:
            self._context.poller.close(self._backend_sock)
            self._backend_sock = None
        if self.backend is not None:
            self.backend.connections -= 1
            self.backend = None

    def _relay(self) -> None:
        context = self._context
        client, backend_sock = self.client_leg, self._backend_sock
        assert client is not None  # noqa: S101 (not over)
        assert backend_sock is not None  # noqa: S101 (connected just now)
        backend = self.backend_leg = Leg(backend_sock, self, context.poller, context.pipes)
        client.other, backend.other = backend, client
        self._leave_hedge()
        if self.backend is not None:
            self.service.dial_answered(self.backend, context.poller.clock() - self._attempt_began)
        dialling = context.dialling.members.pop(self.number, None)
        if client.holds:
            with contextlib.suppress(OSError):  # what is left, or a failure, is found out by the poller
                client.hand_on(backend.fd)
        backend.start(registered=dialling is not None)
        client.start(registered=False)

    def _fin_to_backend(self) -> Event | None:
        return self._fin(self._backend_sock, Event.BACKEND_RESET)

    def _fin_to_client(self) -> Event | None:
        return self._fin(self._client_sock, Event.CLIENT_RESET)

    def _fin(self, sock: socket | None, otherwise: Event) -> Event | None:
        try:
            if sock is not None:
                sock.shutdown(net.SHUT_WR)
        except OSError:  # ENOTCONN: it was reset, and the poller has not told us yet
            return otherwise
        return None

    def _linger(self) -> None:
        self._context.half_closed.add(self.number, self)

    def _close(self) -> None:
        for leg in (self.client_leg, self.backend_leg):
            if leg is not None:
                leg.release()
        context = self._context
        context.dialling.members.pop(self.number, None)
        context.half_closed.members.pop(self.number, None)
        self._leave_hedge()
        self.service.leave(self.peer[0])
        try:
            context.ended(self)
        finally:
            context.poller.close(self._client_sock)
            self._leave_backend()
            self.client_leg = self.backend_leg = None  # no cycles: reference counts free it all, at once

    def _reset(self) -> None:
        for sock in (self._client_sock, self._backend_sock):
            if sock is not None:
                sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)
        self._close()


_CARRY_OUT: dict[Command, Callable[[Connection], Event | None]] = {
    Command.DIAL: Connection._dial,  # noqa: SLF001 (the same class)
    Command.RELAY: Connection._relay,  # noqa: SLF001
    Command.FIN_TO_BACKEND: Connection._fin_to_backend,  # noqa: SLF001
    Command.FIN_TO_CLIENT: Connection._fin_to_client,  # noqa: SLF001
    Command.LINGER: Connection._linger,  # noqa: SLF001
    Command.CLOSE: Connection._close,  # noqa: SLF001
    Command.RESET: Connection._reset,  # noqa: SLF001
}
