"""The clients of a load: a short connection, a question by UDP, a long connection, a continuous transfer.

Each is one socket on the loop, asks with a number of its own, and compares the reply. What became of it
goes to the tally; nothing waits for anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import socket
from collections import Counter
from typing import TYPE_CHECKING, Literal

from integration.load.report import LATE_SECONDS, Cut, Failure, Kind
from integration.load.server import ASK, ECHO, ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.load.loop import Loop

TCP_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_READ_BYTES = 1 << 16
_KINDS: dict[int, Kind] = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "unanswered",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}

# A transfer sends bytes whose place in the stream says what they are, and so many ahead of those it got back.
_BLOCK = random.Random(0).randbytes(1 << 20)  # noqa: S311 - repeatable
_AHEAD_BYTES = 1 << 18


# Questions take ports in turn, below those that the kernel gives: conntrack takes whoever has the same port
# within half a minute for the same client, and leads it where that one was led.
_FIRST_PORT, _PORTS = 20_000, 12_000


def kind_of(error: OSError) -> Kind:
    """What an error means to a client; ours is what no peer can cause."""
    return _KINDS.get(error.errno or 0, "no socket")


class Tally:
    """What became of those that are over.

    Attributes:
        good: connections and questions that got the right reply in time.
        servers: how many replies each has given to these.
        slowest: of the connections among them, in seconds.
        starved: replies that were late only because we were not running.
        replies: to long connections.
        bytes: that transfers got back.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.good: Counter[str] = Counter()
        self.servers: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.cuts: list[Cut] = []
        self.slowest = 0.0
        self.starved = 0
        self.replies = 0
        self.bytes = 0

    def over(self, asker: Asker, reply: bytes) -> None:
        """A reply has come, and its end in good order."""
        seconds = self._loop.now - asker.began
        number, _, server = reply.rstrip(b"\n").partition(b" ")
        if number != asker.number or not reply.endswith(b"\n") or not server:
            self.failed(asker, "truncated" if asker.number.startswith(number) else "wrong")
        elif seconds - self._loop.stalled(asker.began) > LATE_SECONDS:
            self.failed(asker, "delayed")
        else:
            self.good[asker.what] += 1
            self.servers[server.decode(errors="replace")] += 1
            self.starved += seconds > LATE_SECONDS
            if asker.what == "connection":
                self.slowest = max(self.slowest, seconds)

    def failed(self, asker: Asker, kind: Kind) -> None:
        """It came to nothing."""
        seconds = self._loop.now - asker.began - self._loop.stalled(asker.began)
        self.failures.append(Failure(asker.what, kind, asker.began, round(seconds, 3), asker.port))


class Asker:
    """A socket with one request.

    Attributes:
        what: it is.
        number: that it asks with.
        began: when, by CLOCK_MONOTONIC.
        port: its own, once it is over.
        over: it has its reply, or never will.
    """

    what: Literal["connection", "question"]

    def __init__(self, loop: Loop, tally: Tally, address: tuple[str, int], number: int) -> None:
        self.number = b"%d" % number
        self.began = loop.now
        self.port = 0
        self.over = False
        self._loop = loop
        self._tally = tally
        try:
            self._sock = self._open(address)
        except OSError as error:
            self.over = True
            tally.failed(self, kind_of(error))

    def give_up(self) -> None:
        """It has taken too long."""
        self._fail(self._kind_of_silence())

    def _open(self, address: tuple[str, int]) -> socket.socket:
        raise NotImplementedError

    def _kind_of_silence(self) -> Kind:
        return "silent"

    def _succeed(self, reply: bytes) -> None:
        self._close()
        self._tally.over(self, reply)

    def _fail(self, kind: Kind) -> None:
        self._close()
        self._tally.failed(self, kind)

    def _close(self) -> None:
        self.over = True
        self.port = self._sock.getsockname()[1]
        self._loop.forget(self._sock.fileno())
        self._sock.close()


class Short(Asker):
    """A connection with one request."""

    what = "connection"
    _asked = False
    _reply = b""

    def _open(self, address: tuple[str, int]) -> socket.socket:
        sock = opened(address, socket.SOCK_STREAM)
        self._loop.watch(sock.fileno(), TCP_EVENTS, self._on_ready)
        return sock

    def _kind_of_silence(self) -> Kind:
        return "silent" if self._asked else "unanswered"

    def _on_ready(self, events: int) -> None:
        try:
            if not self._asked:
                raise_error(self._sock)
                self._asked = True
                self._sock.send(b"%b %b\n" % (ONCE, self.number))
            if events & (select.EPOLLIN | _ENDS):
                self._read(ends=bool(events & _ENDS))
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(kind_of(error))

    def _read(self, *, ends: bool) -> None:
        while data := self._sock.recv(_READ_BYTES):
            self._reply += data
            if not ends:
                return
        self._succeed(self._reply)


class Question(Asker):
    """A datagram from a socket of its own, and its answer."""

    what = "question"

    def _open(self, address: tuple[str, int]) -> socket.socket:
        sock = opened(address, socket.SOCK_DGRAM, _FIRST_PORT + int(self.number) % _PORTS)
        try:
            sock.send(self.number)
        except OSError:
            sock.close()
            raise
        self._loop.watch(sock.fileno(), select.EPOLLIN, self._on_ready)
        return sock

    def _on_ready(self, _events: int) -> None:
        try:
            reply = self._sock.recv(_READ_BYTES)
        except OSError as error:
            self._fail(kind_of(error))
            return
        # As a resolver does: an answer may be to somebody who had the port before, and has given up.
        if reply.partition(b" ")[0] == self.number:
            self._succeed(reply)


class Long:
    """A connection that stays: it exchanges something whenever it is told to, and ends when it is told to.

    Attributes:
        held: it is connected, and has not been cut.
        over: it has ended, in whatever way.
    """

    what: Literal["exchange", "transfer"] = "exchange"

    def __init__(self, loop: Loop, tally: Tally, address: tuple[str, int]) -> None:
        self.held = False
        self.over = False
        self._loop = loop
        self._tally = tally
        self._ending = False
        self._asked = 0
        self._answered = 0
        self._unread = b""
        try:
            self._sock = opened(address, socket.SOCK_STREAM)
        except OSError as error:
            self.over = True
            self._tally.cuts.append(Cut(self.what, kind_of(error), loop.now))
            return
        loop.watch(self._sock.fileno(), TCP_EVENTS, self._on_ready)

    def go_on(self) -> None:
        """The next exchange, if the one before is over."""
        if self.held and not self._ending and self._asked == self._answered:
            self._asked += 1
            self._attempt(lambda: self._sock.send(b"%b %d\n" % (ASK, self._asked)))

    def end(self) -> None:
        """Finish sending, and hear the rest."""
        self._ending = True
        if self.held:
            self._attempt(lambda: self._sock.shutdown(socket.SHUT_WR))

    def give_up(self) -> None:
        """Whatever it still waits for does not come."""
        self._cut("silent")

    def _on_ready(self, events: int) -> None:
        self._attempt(lambda: self._progress(events))

    def _attempt(self, what: Callable[[], object]) -> None:
        if self.over:
            return
        try:
            what()
        except BlockingIOError:
            return
        except OSError as error:
            self._cut(kind_of(error))

    def _progress(self, events: int) -> None:
        if not self.held:
            raise_error(self._sock)
            self.held = True
            self._greet()
        while events & (select.EPOLLIN | _ENDS):
            data = self._sock.recv(_READ_BYTES)
            if not data:
                self._finish()
                return
            if not self._take(data):
                self._cut("wrong")
                return

    def _greet(self) -> None:
        """Say what this connection is for."""

    def _take(self, data: bytes) -> bool:
        """Whether these bytes are right."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._answered += 1
            self._tally.replies += 1
            if line.partition(b" ")[0] != b"%d" % self._answered:
                return False
        return True

    def _whole(self) -> bool:
        """Whether everything has been answered."""
        return self._asked == self._answered and not self._unread

    def _finish(self) -> None:
        if self._ending and self._whole():
            self._close()
        else:
            self._cut("fin")

    def _cut(self, how: Literal["fin"] | Kind) -> None:
        self._tally.cuts.append(Cut(self.what, how, self._loop.now))
        self._close()

    def _close(self) -> None:
        self.held, self.over = False, True
        self._loop.forget(self._sock.fileno())
        self._sock.close()


class Transfer(Long):
    """A connection that carries bytes both ways all the time."""

    what = "transfer"

    def __init__(self, loop: Loop, tally: Tally, address: tuple[str, int], rate: float) -> None:
        """`rate` is in bytes a call of `go_on`."""
        self._rate = int(rate)
        super().__init__(loop, tally, address)

    def go_on(self) -> None:
        """The next bytes, unless too many are on their way."""
        if self.held and not self._ending and self._asked - self._answered < _AHEAD_BYTES:
            self._attempt(self._send)

    def _greet(self) -> None:
        self._sock.send(ECHO)

    def _send(self) -> None:
        place = self._asked % len(_BLOCK)
        self._asked += self._sock.send(_BLOCK[place : place + self._rate])

    def _take(self, data: bytes) -> bool:
        place = self._answered % len(_BLOCK)
        wanted = _BLOCK[place : place + len(data)]
        wanted += _BLOCK[: len(data) - len(wanted)]
        self._answered += len(data)
        self._tally.replies += 1
        self._tally.bytes += len(data)
        return data == wanted


def opened(address: tuple[str, int], kind: int, port: int = 0) -> socket.socket:
    """A socket that connects, without waiting for that; from a port, or from one that the kernel chooses.

    Raises:
        OSError: it cannot even begin.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if port:
        with contextlib.suppress(OSError):  # somebody else's: then from any one
            sock.bind(("", port))
    error = sock.connect_ex(address)
    if error not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(error, os.strerror(error))
    return sock


def raise_error(sock: socket.socket) -> None:
    """Raise what the kernel holds against a connection attempt, if anything."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
