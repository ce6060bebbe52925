"""What a data plane has of UDP: listeners, their clients' sessions, and handing these over."""

from __future__ import annotations

import socket as net
from _socket import socket
from typing import TYPE_CHECKING

from userproxy.dataplane.udp.listener import LARGEST, DatagramListener
from userproxy.dataplane.udp.session import HEARD_SECONDS, ClientSide, Session, Shared
from userproxy.dataplane.udp.sessions import Sessions
from userproxy.dataplane.udp.unanswered import Room
from userproxy.net.poller import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from userproxy.backends.service import LiveService
    from userproxy.dataplane.connections import ConnectionTable
    from userproxy.model.heritage import SessionState
    from userproxy.model.service import PoolName
    from userproxy.model.state import Serve
    from userproxy.net.poller import Poller

# How often sessions are looked at: their idle time is kept to within this many seconds.
_TICK_SECONDS = 0.5

# While the daemon stops, a session of which nothing is heard for so long is over.
_LAST_SECONDS = 3.0


class Datagrams:
    """The listeners for datagrams of one process, and their sessions. Lives as long as the data plane.

    Args:
        loop: that drives it.
        poller: of the sockets.
        table: of all that an operator sees.
        ended: called with each session when it is over.
        most: sessions.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        table: ConnectionTable,
        ended: Callable[[Session], None],
        most: int,
    ) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._sessions: Sessions[ClientSide, Session] = Sessions(most)
        self._listeners: set[DatagramListener] = set()
        self._inherited: dict[PoolName, list[tuple[SessionState, socket]]] = {}
        self._shared = Shared(
            poller=poller,
            sessions=self._sessions,
            table=table,
            ended=ended,
            counters=table.counters,
            room=Room(),
            buffer=memoryview(bytearray(LARGEST)),
            unheard=Watch(loop, HEARD_SECONDS, Session.listen_to),
        )

    @property
    def count(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    @property
    def most(self) -> int:
        """How many there may be."""
        return self._sessions.most

    def open(self, serve: Serve, service: LiveService, sock: socket) -> DatagramListener:
        """Serve on a new listener, and go on with the sessions that another worker had there."""
        listener = DatagramListener(serve, sock, service, self._shared)
        self._listeners.add(listener)
        for state, backend in self._inherited.pop(serve.name, ()):
            self._restore(listener, state, backend)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)
        return listener

    def inherit(self, states: Iterable[SessionState], fds: Iterable[int]) -> None:
        """Sessions of another worker, and their sockets: for listeners that are about to be opened."""
        for state, fd in zip(states, fds, strict=True):
            family = net.AF_INET6 if state.backend.is_ipv6 else net.AF_INET
            sock = socket(family, net.SOCK_DGRAM | net.SOCK_NONBLOCK, 0, fd)
            self._inherited.setdefault(state.pool, []).append((state, sock))

    def pause(self) -> None:
        """Leave the clients' datagrams for another worker. Answers go on."""
        for listener in self._listeners:
            listener.pause()

    def resume(self) -> None:
        """There is no other worker."""
        for listener in self._listeners:
            listener.resume()

    def hand_over(self) -> Iterator[tuple[SessionState, socket]]:
        """Give up all sessions that have a backend, one after the other."""
        for listener in self._sessions.listeners:
            for session in self._sessions.all_of(listener):
                state = session.as_state(self._shared.poller.clock())
                sock = session.hand_over()
                if sock is not None and state is not None:
                    yield state, sock

    def drain(self) -> None:
        """Serve those who have a session, and nobody new."""
        for listener in self._listeners:
            listener.drain()
            listener.idle = min(listener.idle, _LAST_SECONDS)

    def sweep(self) -> None:
        """Let go of sessions whose listener was never opened."""
        inherited, self._inherited = self._inherited, {}
        for sessions in inherited.values():
            for _, sock in sessions:
                sock.close()

    def stop(self) -> None:
        """Give everything back."""
        self.sweep()
        self._shared.unheard.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _restore(self, listener: DatagramListener, state: SessionState, sock: socket) -> None:
        flow_and_scope = (0, 0) if state.client.is_ipv6 else ()
        listener.begin((state.client.ip, state.client.port, *flow_and_scope)).take_over(sock, state)

    def _tick(self) -> None:
        self._listeners = {listener for listener in self._listeners if not listener.is_closed}
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick) if self._listeners else None
        now = self._shared.poller.clock()
        for listener in self._sessions.listeners:
            listener.expire(now)
