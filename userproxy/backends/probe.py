"""One active check on a socket of its own: a TCP connect, or an HTTP GET up to its status line.

It ends as a client's connection does, in order: a pod that is reset every few seconds says so in its log, and
whoever looks for resets from a node finds them.

| check | how it ends |
|---|---|
| TCP, passed | our FIN; what the pod says and its FIN are waited for |
| HTTP, answered | the pod's FIN, which it was asked for; then ours |
| HTTP, no HTTP answer | as TCP |
| the pod does not finish | the socket is closed; its FIN is for the kernel to wait for (`tcp_fin_timeout`) |
| the pod says more than anybody would read | a reset |
| no answer at all | a reset, if it is connected |

Whoever finishes first remembers the connection for a minute, in TIME_WAIT: with TCP checks that is this node.
A pod has 60 s / interval of them, 12 by default; all have `CHECKS_A_SECOND` * 60 s, which is 12,000 of some
250 bytes, at the very most. They are in nobody's way: their ports may still be used towards other pods.
Nothing gets rid of them in order: SO_LINGER and TCP_LINGER2 do not touch TIME_WAIT, and to destroy it by
netlink could turn a pod's repeated FIN into the very reset that is to be avoided.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket as net
from typing import TYPE_CHECKING

from userproxy.backends.check import is_healthy
from userproxy.model.settings import HealthCheck, ProxyProtocol
from userproxy.net.poller import READ, WRITE
from userproxy.net.proxy_protocol import for_own_check
from userproxy.net.sockets import dialling_socket, reset_on_close

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.model.settings import Check
    from userproxy.net.poller import Poller

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r\n]")
_ENOUGH = 64
"""Bytes of an answer in which its status must be."""

_FAREWELL_SECONDS = 1.0
_FAREWELL_BYTES = 1 << 20
"""What a pod may take, and say, until it has finished too: a pod that heeds its clients does so at once."""

_INCONCLUSIVE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""What we are short of ourselves says nothing of the backend."""


class Probe:
    """A check that is being made. It calls `done` once, and then `left` once.

    Args:
        poller: that drives it.
        live: the backend.
        check: what to do, and what is healthy.
        done: called with the probe, and why the check failed: empty if it passed, None if nothing can be
            said.
        left: called with the probe when its socket is closed.

    Attributes:
        live: the backend.
        began: in monotonic time.
        ends: when it has had its time: call `expire`.
        error: the errno of a connect that failed.
    """

    __slots__ = (
        "_asked",
        "_check",
        "_done",
        "_heard",
        "_leaving",
        "_left",
        "_poller",
        "_received",
        "_sock",
        "began",
        "ends",
        "error",
        "live",
    )

    def __init__(
        self,
        poller: Poller,
        live: LiveBackend,
        check: Check,
        done: Callable[[Probe, str | None], None],
        left: Callable[[Probe], None],
    ) -> None:
        self.live = live
        self.began = poller.clock()
        self.ends = self.began + check.timeout
        self._poller = poller
        self._check = check
        self._done = done
        self._left = left
        self._asked = self._leaving = False
        self._heard = self.error = 0
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
        """The poller's call: it is connected, or was refused, or there is something to read."""
        sock = self._sock
        if sock is None:
            return
        if self._leaving:
            self._hear_out(sock)
            return
        error = sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR)
        if error:
            self._end(error)
        elif self._check.kind is not HealthCheck.HTTP:
            self._announce(sock)
            self._leave(sock, "", finish=True)
        elif not self._asked:
            self._ask(sock)
        else:
            self._read(sock)

    def expire(self) -> None:
        """It has had its time."""
        if self._leaving:
            self._close()
        else:
            self._end(errno.ETIMEDOUT)

    def abort(self) -> None:
        """The poller's call: `on_ready` raised."""
        if self._leaving:
            self._close()
        else:
            self._give_up(None)

    def cancel(self) -> None:
        """Give it up; nobody is told."""
        sock, self._sock = self._sock, None
        if sock is not None:
            if not self._leaving:
                reset_on_close(sock)
            self._poller.close(sock)

    def _announce(self, sock: socket) -> None:
        """Say that nobody's connection this is, to a backend that expects to be told."""
        version = self._check.proxy_protocol
        if version is not ProxyProtocol.OFF:
            with contextlib.suppress(OSError):  # whatever is wrong, the next call finds it too
                sock.send(for_own_check(version))

    def _ask(self, sock: socket) -> None:
        self._asked = True
        self._announce(sock)
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
            healthy = is_healthy(status, self._check)
            self._leave(sock, "" if healthy else f"HTTP status {status}", finish=False)
        elif not received or len(self._received) >= _ENOUGH:
            self._leave(sock, "no HTTP answer", finish=True)

    def _end(self, error: int) -> None:
        self.error = error
        self._give_up(None if error in _INCONCLUSIVE else os.strerror(error).lower())

    def _give_up(self, failure: str | None) -> None:
        self.cancel()
        self._done(self, failure)
        self._left(self)

    def _leave(self, sock: socket, failure: str, *, finish: bool) -> None:
        """Say what came of it, and then part in order.

        Args:
            sock: the socket.
            failure: why the check failed; empty if it passed.
            finish: whether to be the first to finish.
        """
        self._leaving = True
        self.ends = min(self.ends, self._poller.clock() + _FAREWELL_SECONDS)
        self._poller.modify(sock.fileno(), READ)
        if finish:
            with contextlib.suppress(OSError):  # the pod has reset it, as we shall hear
                sock.shutdown(net.SHUT_WR)
        self._done(self, failure)

    def _hear_out(self, sock: socket) -> None:
        # Bytes that nobody has read when a socket is closed make the kernel send a reset.
        try:
            heard = len(sock.recv(1 << 16))
        except BlockingIOError:
            return
        except OSError:
            heard = 0
        self._heard += heard
        if not heard or self._heard >= _FAREWELL_BYTES:
            self._close()

    def _close(self) -> None:
        self.cancel()
        self._left(self)
