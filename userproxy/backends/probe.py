"""One active check on a socket of its own: a TCP connect, or an HTTP GET up to its status line."""

from __future__ import annotations

import errno
import os
import re
import socket as net
from typing import TYPE_CHECKING

from userproxy.backends.check import is_healthy
from userproxy.model.settings import HealthCheck
from userproxy.net.poller import READ, WRITE
from userproxy.net.sockets import RESET_ON_CLOSE, dialling_socket

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.model.settings import Check
    from userproxy.net.poller import Poller

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r\n]")
_ENOUGH = 64
"""Bytes of an answer in which its status must be."""

_INCONCLUSIVE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""What we are short of ourselves says nothing of the backend."""


class Probe:
    """A check that is being made. It ends by calling `done`, once.

    Args:
        poller: that drives it.
        live: the backend.
        check: what to do, and what is healthy.
        done: called with the probe, and why the check failed: empty if it passed, None if nothing can be
            said.

    Attributes:
        live: the backend.
        began: in monotonic time.
        ends: when it has had its time.
    """

    __slots__ = ("_asked", "_check", "_done", "_poller", "_received", "_sock", "began", "ends", "live")

    def __init__(
        self,
        poller: Poller,
        live: LiveBackend,
        check: Check,
        done: Callable[[Probe, str | None], None],
    ) -> None:
        self.live = live
        self.began = poller.clock()
        self.ends = self.began + check.timeout
        self._poller = poller
        self._check = check
        self._done = done
        self._asked = False
        self._received = b""
        self._sock: socket | None = None

    def start(self) -> None:
        """Begin; everything further comes from the poller, or from `expire`."""
        try:
            self._sock = sock = dialling_socket(self.live.address)
            outcome = sock.connect_ex(self.live.sockaddr)
            if outcome not in (0, errno.EINPROGRESS):
                self._end(outcome)
                return
            self._poller.register(sock.fileno(), WRITE, self)
        except OSError as error:
            self._end(error.errno or errno.EIO)

    def on_ready(self, _mask: int) -> None:
        """The poller's call: it is connected, or was refused, or there is an answer to read."""
        sock = self._sock
        if sock is None:
            return
        error = sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)
        if error:
            self._end(error)
        elif self._check.kind is not HealthCheck.HTTP:
            self._finish("")
        elif not self._asked:
            self._ask(sock)
        else:
            self._read(sock)

    def expire(self) -> None:
        """It has had its time."""
        self._end(errno.ETIMEDOUT)

    def abort(self) -> None:
        """The poller's call: `on_ready` raised."""
        self._finish(None)

    def cancel(self) -> None:
        """Give it up; `done` is not called."""
        sock, self._sock = self._sock, None
        if sock is not None:
            # A reset: nobody need read from, or wait for, a connection that was only made to see.
            sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET_ON_CLOSE)
            self._poller.close(sock)

    def _ask(self, sock: socket) -> None:
        self._asked = True
        request = (
            f"GET {self._check.path} HTTP/1.1\r\nHost: {self.live.address}\r\n"
            "User-Agent: userproxy\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        try:
            sock.send(request.encode())  # a new socket has room for so little
        except OSError as error:
            self._end(error.errno or errno.EIO)
        else:
            self._poller.modify(sock.fileno(), READ)

    def _read(self, sock: socket) -> None:
        try:
            received = sock.recv(_ENOUGH - len(self._received))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.errno or errno.EIO)
            return
        self._received += received
        found = _STATUS_LINE.match(self._received)
        if found:
            status = int(found[1])
            self._finish("" if is_healthy(status, self._check) else f"HTTP status {status}")
        elif not received or len(self._received) >= _ENOUGH:
            self._finish("no HTTP answer")

    def _end(self, error: int) -> None:
        self._finish(None if error in _INCONCLUSIVE else os.strerror(error).lower())

    def _finish(self, failure: str | None) -> None:
        self.cancel()
        self._done(self, failure)
