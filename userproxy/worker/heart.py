"""A heart: what a worker says to the kernel, that it accepts clients.

What it sends goes nowhere; our rules note it (`userproxy.model.heartbeat`).
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from userproxy.model.counters import Counters
from userproxy.model.heartbeat import BEAT_PORT, BEAT_SECONDS, LEAVE_PORT, TIMEOUT_SECONDS, mark_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# Also where a node is of IPv6 alone.
_NOWHERE = "127.0.0.1"


CATCH_UP_SECONDS = 1.0
"""In which a worker that hung serves what waits for it; less than the timeout, or it would hang for ever."""


class Heart:
    """The heart of a worker: it beats from the worker's own loop, so that a loop that hangs is silent.

    Args:
        loop: of the worker.
        sock: as `open_socket` makes it; it belongs to the heart from now on.
        counters: of this process: beats, and how late they come.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._counters = Counters() if counters is None else counters
        self._clock = clock
        self._last = clock()
        self._due: float | None = None
        self._rests = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def beats(self) -> bool:
        """Whether it does, or will again."""
        return self._timer is not None

    def begin(self) -> None:
        """Beat from now on.

        Who was silent for so long that the kernel sends clients elsewhere has others in its listen queues,
        who came before. They are served first: whoever comes now would wait behind them.
        """
        now = self._clock()
        if self._due is not None:
            self._counters.loop_lag["worker"].observe(max(0.0, now - self._due))
        hung, self._last = now - self._last > TIMEOUT_SECONDS, now
        pause = CATCH_UP_SECONDS if hung else BEAT_SECONDS
        self._due = now + pause
        self._timer = self._loop.call_later(pause, self.begin)
        if not (hung or self._rests):
            self._counters.heartbeats += 1
            send(self._sock, BEAT_PORT)

    def rest(self, *, rests: bool) -> None:
        """Have clients go elsewhere at once, or come again from the next beat on.

        The next beat is soon, and not now: who has room for one client need not say so for each.
        """
        if rests and not self._rests and self._timer is not None:
            send(self._sock, LEAVE_PORT)
        self._rests = rests

    def stop(self, *, leave: bool) -> None:
        """Beat no more; may be called again.

        Args:
            leave: clients are to go elsewhere at once. Otherwise somebody else takes them.
        """
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if leave:
            send(self._sock, LEAVE_PORT)
        self._sock.close()


def open_socket(index: int) -> socket.socket:
    """The socket of the worker at this place.

    Raises:
        PermissionError: without CAP_NET_ADMIN.
        OSError: no more files may be open.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark_of(index))
    except OSError:
        sock.close()
        raise
    return sock


def send(sock: socket.socket, port: int) -> None:
    """Send one datagram. The kernel says EPERM, as our rules drop it; whatever it says, another follows."""
    with contextlib.suppress(OSError):
        sock.sendto(b"", (_NOWHERE, port))
