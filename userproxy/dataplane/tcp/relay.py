"""The two legs of a connection, and the pump that moves bytes from one to the other.

Readiness is level-triggered, and a wake-up moves one pipe's worth: one splice in, one splice out. Nothing is
read until EAGAIN, because an exception costs as much as a splice. Back-pressure follows from the pipe: while
it holds bytes that the other side does not take, nothing more is read, and the sender's window closes.

That a socket is ready and yet nothing moves must not make a handler spin:

| what the kernel says | why | then |
|---|---|---|
| urgent, readable, nothing to splice | the urgent byte is next | it goes on alone, as urgent |
| urgent, finished, splice says "the end" | the same: there is more behind the mark | the same |
| readable, nothing to splice | no page for the pipe | bytes are copied |
| writable, and takes nothing | no memory for TCP | it rests for a moment, as the kernel does itself |
| readable, and nothing to copy | never seen | the same |
| both sides shut, asked or not | epoll insists | it leaves the poller until there is room |
"""

from __future__ import annotations

import contextlib
import socket as net
from typing import TYPE_CHECKING, Protocol

from userproxy.dataplane.tcp.pipes import SPLICE, SPLICE_MORE, Copy, Urgent
from userproxy.net.poller import ERROR, HANGUP, PEER_FINISHED, READ, URGENT, WRITE
from userproxy.net.sockets import at_urgent_mark

if TYPE_CHECKING:
    from _socket import socket

    from userproxy.dataplane.tcp.pipes import Carrier, PipePool
    from userproxy.net.poller import Poller

# Whoever has sent much before finishing is read up to the end in turns with the others.
_LAST_ROUNDS = 4

# Calls in a row in which a socket that was said to be ready moved nothing, until it rests.
_CALLS_IN_VAIN = 8

_READABLE = READ | URGENT
_INCOMING = READ | PEER_FINISHED | URGENT

_NEVER = (0, 0)


class Ends(Protocol):
    """Who is told how a leg ends."""

    def finished(self, leg: Leg) -> None:
        """The leg's peer has shut its sending side, and all it sent has been handed on."""
        ...

    def failed(self, leg: Leg, error: int) -> None:
        """The leg's socket failed, with this errno: a reset, or a keepalive that nobody answered."""
        ...

    def rests(self, leg: Leg, *, again: bool) -> None:
        """A leg was said to be ready again and again, moved nothing, and has left the poller.

        Args:
            leg: to `wake` in a moment.
            again: no byte has moved since its last rest.
        """
        ...

    def abort(self) -> None:
        """Give up the whole connection."""
        ...


class Leg:
    """One of a connection's two sockets: the bytes that come in on it go to `other`.

    Attributes:
        sock: the connected, non-blocking socket, which takes urgent bytes inline.
        fd: its number.
        interest: what the poller is to tell of it; 0 before it has started, and once the connection is over.
        other: the leg that gets what comes in here; itself, until there is another one.
        received: bytes that came in.
        first_received: when the first of them came, if any did, in the poller's time.
        last_received: when they came or were handed on last, or the end came, in the poller's time.
    """

    __slots__ = (
        "_carrier",
        "_ends",
        "_parked",
        "_pipes",
        "_poller",
        "_vain",
        "fd",
        "first_received",
        "interest",
        "last_received",
        "other",
        "received",
        "sock",
    )

    def __init__(self, sock: socket, ends: Ends, poller: Poller, pipes: PipePool) -> None:
        self.sock = sock
        self.received = 0
        self.first_received = self.last_received = poller.now
        self.fd = sock.fileno()
        self._ends = ends
        self._poller = poller
        self._pipes = pipes
        self._carrier: Carrier | None = None
        self.interest = 0
        self.other = self
        self._parked = False
        self._vain = _NEVER

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

    def prefetch(self) -> bool:
        """Take what has come already, before there is another side.

        Returns:
            Whether the socket is well. An end comes up again later on; the kernel tells of a reset only once,
            and of an end from then on.
        """
        try:
            self.received = self._pipes.at_hand.fill(self.fd)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if self.received:
            self.first_received = self._poller.now
            self._carrier = self._pipes.take()
        return True

    def hold(self, preface: bytes) -> None:
        """Have the other side get this before anything that comes in."""
        self._carrier = carrier = self._pipes.take()
        carrier.put(preface)

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
            self._move(SPLICE)  # an end would be told with PEER_FINISHED, by the next round
            return
        if mask & WRITE:
            self.other.flush()
        if mask & _READABLE and self.interest & READ:
            if mask & URGENT:
                self._move_urgent()
            elif mask & PEER_FINISHED:
                self._move_last()
            else:
                self._move(SPLICE)
        elif mask & ERROR:
            self._ends.failed(self, self.sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR))
        elif mask & HANGUP:
            self._on_hangup()
        elif mask & _INCOMING:
            self._poller.modify(self.fd, self.interest)

    def abort(self) -> None:
        """The poller's call: `on_ready` raised."""
        self._ends.abort()

    def _move(self, flags: int) -> int:
        """Move a pipe's worth.

        Args:
            flags: `SPLICE_MORE` if something follows at once, or else `SPLICE`.

        Returns:
            How many bytes were moved; 0 for the end of the stream; -1 if no more can be moved now.
        """
        carrier = self._pipes.at_hand
        try:
            count = carrier.carry(self.fd, self.other.fd, flags)
        except BlockingIOError:
            self._move_by(Urgent() if at_urgent_mark(self.fd) else Copy())
            return -1
        except OSError as error:
            self._stop(carrier, error)
            return -1
        now = self._poller.now
        received = self.received
        if not received:
            self.first_received = now
        self.received = received + count
        self.last_received = now  # an end counts too: what is left has its time from here
        if carrier.held:
            self._hold(self._pipes.take())
            return -1
        return count

    def _move_urgent(self) -> None:
        """Move what is in front of the urgent mark, and then the byte at it."""
        if at_urgent_mark(self.fd):
            self._move_by(Urgent())
        else:
            self._move(SPLICE)

    def _move_by(self, carrier: Carrier) -> None:
        """Move what splice does not."""
        try:
            count = carrier.carry(self.fd, self.other.fd, SPLICE)
        except BlockingIOError:
            self._in_vain(self)
            return
        except OSError as error:
            self._stop(carrier, error)
            return
        self._note(count)
        if carrier.held:
            self._hold(carrier)

    def _note(self, count: int) -> None:
        now = self._poller.now
        if not self.received:
            self.first_received = now
        self.received += count
        self.last_received = now

    def _hold(self, carrier: Carrier) -> None:
        """Read no more until the other side has taken what is in the carrier."""
        other = self.other
        self._carrier = carrier
        self.want(self.interest & ~_INCOMING)
        other.want(other.interest | WRITE)

    def _move_last(self) -> None:
        """Move the bytes in front of the peer's FIN: the kernel sends them and our own FIN in one packet."""
        for _ in range(_LAST_ROUNDS):
            moved = self._move(SPLICE_MORE)
            if moved <= 0:
                if moved == 0:
                    self._end()
                return

    def _stop(self, carrier: Carrier, error: OSError) -> None:
        """One of the sockets failed: the other one, if the carrier has bytes for it."""
        if carrier.held:
            if carrier is self._pipes.at_hand:
                self._pipes.discard()
            self._note(carrier.held)
            self.other.broke(error)
        else:
            self._ends.failed(self, error.errno or 0)

    def flush(self) -> None:
        """Hand on what is held, now that the other side has room."""
        other = self.other
        if not self.holds:
            return
        try:
            handed_on = self.hand_on(other.fd)
        except BlockingIOError:
            self._in_vain(other)
            return
        except OSError as error:
            other.broke(error)
            return
        # An open direction is idle only when nothing leaves on it either: a slow reader is not a dead one.
        self.last_received = self._poller.now
        if handed_on:
            other.want(other.interest & ~WRITE)
            self.want(self.interest | _INCOMING)

    def broke(self, error: OSError) -> None:
        """Sending here failed. What its peer had sent before goes on first: an early reply tells why."""
        if self.interest & READ:
            with contextlib.suppress(OSError):
                for _ in range(_LAST_ROUNDS):
                    if not self._move_what_is_left():
                        break
        self._ends.failed(self, error.errno or 0)

    def _move_what_is_left(self) -> bool:
        carrier: Carrier = Urgent() if at_urgent_mark(self.fd) else self._pipes.take()
        try:
            count = carrier.fill(self.fd)
            self.received += count
            return count > 0 and not carrier.drain(self.other.fd)
        finally:
            self._pipes.release(carrier)

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
            self._park()

    def _park(self) -> None:
        self._parked = True
        self._poller.unregister(self.fd)

    def _in_vain(self, ready: Leg) -> None:
        """A leg was said to be ready, and yet nothing moved. Once or twice that is chance."""
        carrier = self._carrier
        handed_on = self.received - (carrier.held if carrier is not None else 0)
        since, calls = self._vain
        calls = calls + 1 if since == handed_on else 1
        self._vain = (handed_on, calls)
        if calls >= _CALLS_IN_VAIN and not ready._parked:
            ready._park()
            self._ends.rests(ready, again=calls > _CALLS_IN_VAIN)

    def wake(self) -> None:
        """Try again after a rest."""
        if self._parked:
            self.want(self.interest)

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
