"""Sockets that are given back, and time that a test sets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as net
from _socket import socket
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, cast

from userproxy.net.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack


def open_fds() -> set[str]:
    """What this process has open, by number and by what it is."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that the listing was read from
            found.add(f"{entry.name} {entry.readlink()}")
    return found


class Clock:
    """A clock that a test sets. It begins now, as some of what is tested looks at the real one too."""

    def __init__(self) -> None:
        self.now = monotonic()

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


class Sockets:
    """Opens sockets and pollers, for as long as the stack lasts."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def keep(self, sock: socket) -> socket:
        """Close it in the end, if nobody has."""
        self._stack.callback(sock.close)
        return sock

    def finally_call(self, callback: Callable[[], object]) -> None:
        """Call this in the end, before what was opened before is closed."""
        self._stack.callback(callback)

    def poller(self, clock: Callable[[], float] | None = None) -> Poller:
        """A poller that the test drives itself."""
        poller = Poller(clock) if clock else Poller()
        self._stack.callback(poller.shut)
        return poller

    def pair(self) -> tuple[socket, socket]:
        """Two connected sockets, as the data side's: plain and non-blocking."""
        near, far = net.socketpair()
        return self._plain(near), self._plain(far)

    def tcp_pair(self) -> tuple[socket, socket]:
        """Two sockets connected over loopback; the second one is the accepted one."""
        with net.create_server(("127.0.0.1", 0)) as server:
            near = net.create_connection(server.getsockname())
            far, _ = server.accept()
        return self._plain(near), self._plain(far)

    def _plain(self, sock: net.socket) -> socket:
        family, fd = sock.family, sock.detach()
        os.set_blocking(fd, False)
        return self.keep(socket(family, net.SOCK_STREAM | net.SOCK_NONBLOCK, 0, fd))


class VirtualTimers:
    """The part of an event loop that keeps timers. They run when told to."""

    def __init__(self) -> None:
        self._set: list[tuple[float, asyncio.TimerHandle]] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Itself, for whoever only sets timers."""
        return cast("asyncio.AbstractEventLoop", self)

    @property
    def delays(self) -> list[float]:
        """Of the timers that are set, in seconds."""
        return [delay for delay, handle in self._set if not handle.cancelled()]

    def get_debug(self) -> bool:
        """Asked by the handles."""
        return False

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Keep it for `tick`."""
        handle = asyncio.TimerHandle(0, callback, args, self.loop)
        self._set.append((delay, handle))
        return handle

    def tick(self) -> None:
        """Run every timer that is set now."""
        due, self._set = self._set, []
        for _, handle in due:
            if not handle.cancelled():
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Told by the handles."""
