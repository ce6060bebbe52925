"""One connection: applies what its flow says, and tells it what came of it."""

from __future__ import annotations

import contextlib
import socket as net
from typing import TYPE_CHECKING

import structlog

from userproxy.dataplane.tcp.dial import Dial
from userproxy.dataplane.tcp.greeting import is_announced
from userproxy.dataplane.tcp.lifecycle import Command, Event, Flow, State
from userproxy.dataplane.tcp.relay import Leg
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.settings import ProxyProtocol
from userproxy.net import proxy_protocol
from userproxy.net.sockets import (
    NOBODY_THERE,
    deliver_on_close,
    keep_alive,
    original_destination,
    original_sockaddr,
    reset_on_close,
)

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.dataplane.tcp.context import Context
    from userproxy.model.records import Facts
    from userproxy.net.proxy_protocol import Header

log = structlog.get_logger(__name__)


class Connection:
    """A client's connection, from accepted to over.

    Attributes:
        number: unique while the daemon lives.
        service: whose traffic it is.
        peer: the client's IP and port; a balancer's until it has said who its client is.
        opened: when it was accepted, in monotonic time.
        client_leg: towards the client; None once it is over.
        backend_leg: towards the backend; None before one has answered, and once it is over.
    """

    __slots__ = (
        "_client_sock",
        "_context",
        "_dial",
        "_flow",
        "_half_closed",
        "_header",
        "_original",
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
        self.opened = context.poller.clock()  # not `now`: a listener that closes accepts outside of a round
        self.client_leg: Leg | None = Leg(client, self, context.poller, context.pipes)
        self.backend_leg: Leg | None = None
        self._context = context
        self._flow = Flow()
        self._half_closed: tuple[float, State] | None = None
        self._original = context.original(client)  # now: conntrack forgets a connection that is reset
        self._client_sock = client
        self._header: Header | None = None
        self._dial = Dial(self, context.dialling)
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
    def backend(self) -> LiveBackend | None:
        """Where it goes, or is being dialled; None before and between."""
        return self._dial.backend

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
        """Where the backend sees its leg come from, while there is one: from here, or from the client."""
        if self._dial.sock is None:
            return None
        ip, port = self._dial.sock.getsockname()[:2]
        return Address(self._dial.kept or ip, port)

    @property
    def last_active(self) -> float:
        """When a byte moved last, in monotonic time."""
        if self.client_leg is None or self.backend_leg is None:
            return self.opened
        return max(self.client_leg.last_received, self.backend_leg.last_received)

    def facts(self) -> Facts:
        """What it tells of itself now."""
        opened, dial, flow, half_closed = self.opened, self._dial, self._flow, self._half_closed
        client, backend, connected = self.client_leg, self.backend_leg, dial.connected
        up, down = client.received if client else 0, backend.received if backend else 0
        timeline = (
            dial.attempts,
            connected - opened if connected else None,
            dial.seconds if connected else None,
            client.first_received - opened if client and up else None,
            backend.first_received - opened if backend and down else None,
            half_closed[0] - opened if half_closed else None,
            half_closed is not None and half_closed[1] is State.CLIENT_FINISHED,
            0,
            0,
            dial.left_out,
        )
        sock, pod = dial.sock, dial.backend
        return (
            self.peer,
            self._original or original_sockaddr(self._client_sock),
            None if sock is None else sock.getsockname()[:2],
            None if pod is None else pod.address,
            up,
            down,
            flow.reason,
            flow.state,
            timeline,
        )

    def open(self) -> None:
        """Reach a backend. Returns at once; everything further comes as events."""
        if self._flow.state is not State.CONNECTING:  # it may be over, if it had to wait for a socket
            return
        networks = self.service.pool.settings.accept_proxy_protocol
        try:
            if networks and self._header is None and is_announced(self.peer[0], networks):
                self._run(Event.GREETING_DUE)
            else:
                self._run(self._reach())
        except Exception:
            # The poller, which would give it up, does not know it yet.
            log.exception("a connection is given up: dialling failed")
            self.abort()

    def _reach(self) -> Event | None:
        client, service = self.client_leg, self.service
        if client is not None and not client.holds and not service.holds:
            version = service.pool.settings.proxy_protocol
            if version is not ProxyProtocol.OFF:
                client.hold(self._announcement(version))
            # Most clients speak first, and have by now: their bytes go to the backend as soon as it answers.
            elif not client.prefetch():
                return Event.CLIENT_RESET
        return self._dial.next()

    def _announcement(self, version: ProxyProtocol) -> bytes:
        """What tells the backend who the client is."""
        client, sock = self.client, self._client_sock
        destination = self._header.destination if self._header is not None else None
        return proxy_protocol.encode(
            version,
            client,
            destination or self.frontend or Address(*sock.getsockname()[:2]),
            name=self._context.id_of(self),
            service=str(self.service.pool.service),
        )

    def greeted(self, header: Header | None) -> None:
        """The reception's report: who the client of a balancer is; None if it did not say so."""
        service, client = self.service, header.client if header is not None else None
        self._header = header
        if client is not None:
            service.leave(self.peer[0])  # first: a balancer may be a client itself
            is_one_too_many = service.is_full_for(client.ip)
            self.peer = client.ip, client.port
            service.enter(client.ip)
            if is_one_too_many:
                service.counters.clients_turned_away += 1
                self._run(Event.TOO_MANY)
                return
        self._run(Event.NOT_GREETED if header is None else Event.GREETED)

    def end(self, event: Event) -> None:
        """End it from outside: `KILLED` or `SHUTDOWN`."""
        self._run(event)

    def waited(self, event: Event) -> None:
        """The waiting room's report: there are endpoints, or waiting is over otherwise."""
        self._run(event)

    def dialled(self, event: Event) -> None:
        """The dial's report: a backend answered, or one more did not."""
        self._run(event)

    def finished(self, leg: Leg) -> None:
        """A leg's report: its peer sends no more."""
        self._run(Event.CLIENT_FIN if leg is self.client_leg else Event.BACKEND_FIN)

    def failed(self, leg: Leg, error: int) -> None:
        """A leg's report: its socket failed, with this errno."""
        if leg is self.client_leg:
            self._run(Event.CLIENT_LOST if error in NOBODY_THERE else Event.CLIENT_RESET)
        else:
            self._run(Event.BACKEND_LOST if error in NOBODY_THERE else Event.BACKEND_RESET)

    def rests(self, leg: Leg, *, again: bool) -> None:
        """A leg's report: it is said to be ready, moves nothing, and has left the poller for a moment."""
        self._context.resting.add(self.number, self)
        if not again:
            log.warning(
                "a connection rests: its socket is said to be ready, and moves nothing",
                id=str(self.number),
                service=str(self.service.pool.service),
                of="client" if leg is self.client_leg else "backend",
            )

    def wake(self) -> None:
        """The moment is over."""
        self._context.resting.members.pop(self.number, None)
        for leg in (self.client_leg, self.backend_leg):
            if leg is not None:
                leg.wake()

    def abort(self) -> None:
        """Give it up: something failed that never should."""
        self._context.pipes.discard()  # its bytes may still be in what the next connection would use
        self._run(Event.FAILED)

    def look_at_half_closed(self) -> None:
        """Give it up if the open direction carries nothing any more."""
        if self._context.poller.clock() - self.last_active >= self._context.linger:
            self._run(Event.LINGER_EXPIRED)

    def equip(self) -> bool:
        """Give the backend's socket keepalive, as the client's has it; returns whether that is settled.

        It is not while a backend is still looked for.
        """
        if self._flow.state in (State.CONNECTING, State.WAITING):
            return False
        if self._dial.sock is not None:
            keep_alive(self._dial.sock)
        return True

    def _run(self, event: Event | None) -> None:
        while event is not None:
            following: Event | None = None
            for command in self._flow.handle(event):
                following = _CARRY_OUT[command](self) or following
            event = following

    def _next(self) -> Event | None:
        return self._dial.next()

    def _greet(self) -> None:
        self._context.reception.enter(self, self._client_sock)

    def _wait(self) -> Event | None:
        return None if self._context.waiting.enter(self, self._client_sock) else Event.HOLD_FULL

    def _dial_anew(self) -> Event | None:
        self._context.waiting.leave(self)
        self._dial.begin_anew()
        return self._reach()

    def _relay(self) -> None:
        context, dial, client = self._context, self._dial, self.client_leg
        assert client is not None  # noqa: S101 (not over)
        assert dial.sock is not None  # noqa: S101 (connected just now)
        backend = self.backend_leg = Leg(dial.sock, self, context.poller, context.pipes)
        client.other, backend.other = backend, client
        registered = dial.answered()
        if client.holds:
            with contextlib.suppress(OSError):  # what is left, or a failure, is found out by the poller
                client.hand_on(backend.fd)
        backend.start(registered=registered)
        client.start(registered=False)

    def _fin_to_backend(self) -> Event | None:
        return self._fin(self._dial.sock, Event.BACKEND_RESET)

    def _fin_to_client(self) -> Event | None:
        return self._fin(self._client_sock, Event.CLIENT_RESET)

    def _fin(self, sock: socket | None, otherwise: Event) -> Event | None:
        try:
            if sock is not None:
                deliver_on_close(sock)
                sock.shutdown(net.SHUT_WR)
        except OSError:  # ENOTCONN: it was reset, and the poller has not told us yet
            return otherwise
        return None

    def _linger(self) -> None:
        self._half_closed = self._context.poller.now, self._flow.state
        self._context.half_closed.add(self.number, self)

    def _finish(self) -> None:
        # Who finished second has been sent the end already; close() sends it to the other one.
        last = self._client_sock if self._flow.reason is Reason.CLIENT_FIN else self._dial.sock
        assert last is not None  # noqa: S101 (not over)
        deliver_on_close(last)
        self._close()

    def _close(self) -> None:
        for leg in (self.client_leg, self.backend_leg):
            if leg is not None:
                leg.release()
        context = self._context
        context.half_closed.members.pop(self.number, None)
        context.reception.leave(self)
        context.waiting.leave(self)
        self.service.leave(self.peer[0])
        try:
            context.ended(self)
        finally:
            context.poller.close(self._client_sock)
            self._dial.leave()
            self.client_leg = self.backend_leg = None  # no cycles: reference counts free it all, at once

    def _reset(self) -> None:
        for sock in (self._client_sock, self._dial.sock):
            if sock is not None:
                reset_on_close(sock)
        self._close()


_CARRY_OUT: dict[Command, Callable[[Connection], Event | None]] = {
    Command.DIAL: Connection._next,  # noqa: SLF001 (the same class)
    Command.GREET: Connection._greet,  # noqa: SLF001
    Command.WAIT: Connection._wait,  # noqa: SLF001
    Command.DIAL_ANEW: Connection._dial_anew,  # noqa: SLF001
    Command.RELAY: Connection._relay,  # noqa: SLF001
    Command.FIN_TO_BACKEND: Connection._fin_to_backend,  # noqa: SLF001
    Command.FIN_TO_CLIENT: Connection._fin_to_client,  # noqa: SLF001
    Command.LINGER: Connection._linger,  # noqa: SLF001
    Command.CLOSE: Connection._finish,  # noqa: SLF001
    Command.RESET: Connection._reset,  # noqa: SLF001
}
