"""Takes the datagrams of all clients of one Service port, and sends them their answers.

Like a TCP listener's socket it is bound to the host IP, and netfilter redirects every entry of the Service
there. So an answer leaves with that address, and conntrack gives it the one that the client asked, be it a
node port of 127.0.0.1 or another address of the node.

Exactly one worker reads a listener: the kernel would spread the datagrams of a client over several.
"""

from __future__ import annotations

import socket as net
from _socket import socket
from typing import TYPE_CHECKING

from userproxy.dataplane.udp.session import Session
from userproxy.model.endings import Reason
from userproxy.net.poller import READ

if TYPE_CHECKING:
    from userproxy.backends.service import LiveService
    from userproxy.dataplane.udp.session import Shared
    from userproxy.dataplane.udp.sessions import Peer
    from userproxy.model.address import Address
    from userproxy.model.state import Serve

LARGEST = 65535
"""Bytes that a datagram cannot exceed, with room for IPv6's, whose headers do not count."""

# Datagrams taken in one go: others wait for theirs meanwhile.
_BURST = 32

# While nobody reads, at a handover say, datagrams wait here.
_BUFFER_BYTES = 4 << 20

# asm-generic/socket.h: beyond net.core.rmem_max and wmem_max, with CAP_NET_ADMIN.
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


def listen(address: Address) -> socket:
    """Open a socket for datagrams.

    Raises:
        OSError: EADDRINUSE: something else has that port; EADDRNOTAVAIL: the address is not this node's.
    """
    family = net.AF_INET6 if address.is_ipv6 else net.AF_INET
    sock = socket(family, net.SOCK_DGRAM | net.SOCK_NONBLOCK | net.SOCK_CLOEXEC)
    try:
        _enlarge(sock, _SO_RCVBUFFORCE, net.SO_RCVBUF)
        _enlarge(sock, _SO_SNDBUFFORCE, net.SO_SNDBUF)
        sock.bind((address.ip, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket, by_force: int, option: int) -> None:
    try:
        sock.setsockopt(net.SOL_SOCKET, by_force, _BUFFER_BYTES)
    except PermissionError:  # without CAP_NET_ADMIN: as much as the system allows anybody
        sock.setsockopt(net.SOL_SOCKET, option, _BUFFER_BYTES)


class DatagramListener:
    """The socket of one Service port, on which its clients' datagrams arrive.

    Args:
        serve: where it listens, and how long sessions last.
        sock: the socket, which it owns from now on.
        service: whose traffic it is.
        shared: what all sessions share.

    Attributes:
        address: where it listens.
        idle: seconds without a datagram after which a session is over.
        short: whether a session is over when each question has its answer.
    """

    def __init__(self, serve: Serve, sock: socket, service: LiveService, shared: Shared) -> None:
        self.address = serve.listener
        self.update(serve)
        self._sock = sock
        self._service = service
        self._shared = shared
        self._reads = True
        self._closed = False
        self._known_only = False
        shared.poller.register(sock.fileno(), READ, self)

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self._closed

    def update(self, serve: Serve) -> None:
        """Take over how long sessions last."""
        self.idle = serve.idle
        self.short = serve.short

    def fileno(self) -> int:
        """The number of the socket."""
        return self._sock.fileno()

    def on_ready(self, _mask: int) -> None:
        """The poller's call: take what has come."""
        shared = self._shared
        buffer, find, receive = shared.buffer, shared.sessions.find, self._sock.recvfrom_into
        for _ in range(_BURST):
            try:
                count, peer = receive(buffer)
            except BlockingIOError:
                return
            except OSError:  # of what was sent to a client, and nothing that could be told to anybody
                continue
            session = find(self, peer) or self._begin(peer)
            if session is not None:
                session.forward(buffer[:count])

    def abort(self) -> None:
        """The poller's call: handling one datagram failed; the others are not to suffer from it."""

    def answer(self, datagram: memoryview, peer: Peer) -> None:
        """Send an answer to a client."""
        try:
            self._sock.sendto(datagram, peer)
        except OSError:
            self._shared.counters.datagrams_dropped["not-sent"] += 1

    def starved(self, session: Session) -> None:
        """This process may open no more files: the session that was used least recently gives way."""
        oldest = self._shared.sessions.oldest()
        if oldest is not None and oldest is not session:
            oldest.finish(Reason.EVICTED)

    def begin(self, peer: Peer) -> Session:
        """A session for a client."""
        shared = self._shared
        session = Session(shared.table.next_number(), shared, self, self._service, peer)
        shared.sessions.add(self, session)
        shared.table.add(session)
        return session

    def pause(self) -> None:
        """Leave the datagrams in the socket, for another process to take. Answers go on."""
        if self._reads:
            self._reads = False
            self._shared.poller.modify(self._sock.fileno(), 0)

    def resume(self) -> None:
        """Take them again."""
        if not self._reads:
            self._reads = True
            self._shared.poller.modify(self._sock.fileno(), READ)

    def drain(self) -> None:
        """Serve those who have a session, and nobody new."""
        self._known_only = True

    def wait(self, _waits: bool) -> None:
        """Nobody waits: where there is no room for another session, the oldest one gives way."""

    def expire(self, now: float) -> None:
        """End the sessions of which nothing was heard for long enough."""
        for session in self._shared.sessions.idle(self, now - self.idle):
            session.finish(Reason.IDLE)

    def close(self) -> None:
        """Take no more. There is no way back to its clients either, so their sessions are over."""
        if self._closed:
            return
        self._closed = True
        for session in self._shared.sessions.all_of(self):
            session.finish(Reason.LISTENER_CLOSED)
        self._shared.poller.unregister(self._sock.fileno())  # another process may have the socket too
        self._shared.poller.close(self._sock)

    def _begin(self, peer: Peer) -> Session | None:
        """A session for a new client; None if it is to have none."""
        shared, service = self._shared, self._service
        if self._known_only:
            shared.counters.datagrams_dropped["stopping"] += 1
            return None
        if service.is_full_for(peer[0]):
            shared.counters.clients_turned_away += 1
            return None
        if service.is_full:
            self._evict(shared.sessions.oldest_of(self))
        if shared.sessions.is_full:
            self._evict(shared.sessions.oldest())
        return self.begin(peer)

    def _evict(self, session: Session | None) -> None:
        if session is not None:
            session.finish(Reason.EVICTED)
