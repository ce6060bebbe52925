"""The two legs of a connection, and the pump that moves bytes from one to the other.

Readiness is level-triggered, and a wake-up moves one pipe's worth: one splice in, one splice out. Nothing is
read until EAGAIN, because an exception costs as much as a splice. Back-pressure follows from the pipe: while
it holds bytes that the other side does not take, nothing more is read, and the sender's window closes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from userproxy.dataplane.tcp.pipes import SPLICE, SPLICE_MORE
from userproxy.net.poller import ERROR, HANGUP, PEER_FINISHED, READ, WRITE

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.tcp.pipes import Carrier, PipePool
    from userproxy.net.poller import Poller


# Whoever has sent much before finishing is read up to the end in turns with the others.
_LAST_ROUNDS = 4

_INCOMING = READ | PEER_FINISHED


class Ends(Protocol):
    """Who is told how a leg ends."""

    def finished(self, leg: Leg) -> None:
        """The leg's peer has shut its sending side, and all it sent has been handed on."""
        ...

    def failed(self, leg: Leg) -> None:
        """The leg's socket failed: a reset, or a keepalive that nobody answered."""
        ...

    def abort(self) -> None:
        """Give up the whole connection."""
        ...


class Leg:
    """One of a connection's two sockets: the bytes that come in on it go to `other`.

    Attributes:
        sock: the connected, non-blocking socket.
        fd: its number.
        interest: what the poller is to tell of it; 0 before it has started, and once the connection is over.
        other: the leg that gets what comes in here; itself, until there is another one.
        received: bytes that came in.
        last_received: when they came or were handed on last, or the end came, in the poller's time.
    """

    __slots__ = (
        "_carrier",
        "_ends",
        "_parked",
        "_pipes",
        "_poller",
        "fd",
        "interest",
        "last_received",
        "other",
        "received",
        "sock",
    )

    def __init__(self, sock: socket, ends: Ends, poller: Poller, pipes: PipePool) -> None:
        self.sock = sock
        self.received = 0
        self.last_received = poller.now
        self.fd = sock.fileno()
        self._ends = ends
        self._poller = poller
        self._pipes = pipes
        self._carrier: Carrier | None = None
        self.interest = 0
        self.other = self
        self._parked = False

    def start(self, *, registered: bool) -> None:
        """Begin to relay what comes in.

        Args:
            registered: whether the poller has the socket already, as after dialling it.
        """
        self.interest = 0 if self.holds else _INCOMING
        if self.other.holds:
            self.interest |= WRITE
        if registered:
            self._poller.hand_over(self.fd, self.interest, self)
        else:
            self._poller.register(self.fd, self.interest, self)

    @property
    def holds(self) -> bool:
        """Whether it has bytes for the other side."""
        return self._carrier is not None

    def prefetch(self) -> None:
        """Take what has come already, before there is another side. An end or a failure comes up later."""
        try:
            self.received = self._pipes.at_hand.fill(self.fd)
        except OSError:
            return
        if self.received:
            self._carrier = self._pipes.take()

    def hand_on(self, fd: int) -> bool:
        """Hand what it holds to a socket, as much as that takes; returns whether that was all.

        Raises:
            BlockingIOError: it takes nothing now.
            OSError: the socket failed.
        """
        carrier = self._carrier
        if carrier is not None:
            if carrier.drain(fd):
                return False
            self._carrier = None
            self._pipes.release(carrier)
        return True

    def on_ready(self, mask: int) -> None:
        """The poller's call: move what can be moved."""
        if mask == READ and self.interest & READ:
            self._move(SPLICE)
            return
        if mask & WRITE:
            self.other.flush()
        if mask & READ and self.interest & READ:
            if mask & PEER_FINISHED:
                self._move_last()
            else:
                self._move(SPLICE)
        elif mask & ERROR:
            self._ends.failed(self)
        elif mask & HANGUP:
            self._on_hangup()
        elif mask & READ:
            self._poller.modify(self.fd, self.interest)

    def abort(self) -> None:
        """The poller's call: `on_ready` raised."""
        self._ends.abort()

    def _move(self, flags: int) -> bool:
        """Move a pipe's worth; returns whether the other side has room for what may follow.

        Args:
            flags: `SPLICE_MORE` if something follows at once, or else `SPLICE`.
        """
        other, carrier = self.other, self._pipes.at_hand
        try:
            count = carrier.carry(self.fd, other.fd, flags)
        except BlockingIOError:
            return False
        except OSError:
            self._stop(carrier.held)
            return False
        self.received += count
        self.last_received = self._poller.now  # an end is news too: what is left has its time from here
        if carrier.held:
            self._carrier = self._pipes.take()
            self.want(self.interest & ~_INCOMING)
            other.want(other.interest | WRITE)
            return False
        if not count:
            self._end()
        return count > 0

    def _move_last(self) -> None:
        """Move the bytes in front of the peer's FIN: the kernel sends them and our own FIN in one packet."""
        for _ in range(_LAST_ROUNDS):
            if not self._move(SPLICE_MORE):
                return

    def _stop(self, held: int) -> None:
        """One of the sockets failed: the other one, if bytes for it are held."""
        if held:
            self._pipes.discard()
            self.received += held
            self.last_received = self._poller.now
            self.other.broke()
        else:
            self._ends.failed(self)

    def flush(self) -> None:
        """Hand on what is held, now that the other side has room."""
        other = self.other
        if not self.holds:
            return
        try:
            handed_on = self.hand_on(other.fd)
        except BlockingIOError:
            return
        except OSError:
            other.broke()
            return
        # An open direction is idle only when nothing leaves on it either: a slow reader is not a dead one.
        self.last_received = self._poller.now
        if handed_on:
            other.want(other.interest & ~WRITE)
            self.want(self.interest | _INCOMING)

    def broke(self) -> None:
        """Sending here failed. What its peer had sent before goes on first: an early reply tells why."""
        if self.interest & READ:
            carrier = self._pipes.take()
            with contextlib.suppress(OSError):
                for _ in range(_LAST_ROUNDS):
                    count = carrier.fill(self.fd)
                    self.received += count
                    if count == 0 or carrier.drain(self.other.fd):
                        break
            self._pipes.release(carrier)
        self._ends.failed(self)

    def _end(self) -> None:
        # The poller is told only when it speaks of the end again: mostly the connection is over by then.
        self.interest &= ~_INCOMING
        self._ends.finished(self)

    def _on_hangup(self) -> None:
        # Both directions of this socket are shut, and what it has received waits until the other side takes
        # what we hold. epoll tells a hang-up whether asked or not, so the only way not to be called all the
        # time is to leave the poller until there is room again. There may be by now: the mask is as old as
        # the round, in which the other side may have been served before us.
        if not self._parked and not self.interest & READ:
            self._parked = True
            self._poller.unregister(self.fd)

    def want(self, interest: int) -> None:
        """Be told of this, and of nothing else."""
        self.interest = interest
        if self._parked:
            self._parked = False
            self._poller.register(self.fd, interest, self)
        else:
            self._poller.modify(self.fd, interest)

    def release(self) -> None:
        """Give the pipe back and take no more events: the connection is over."""
        self.interest = 0
        del self.other
        if self._carrier is not None:
            self._pipes.release(self._carrier)
            self._carrier = None
