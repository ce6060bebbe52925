"""The file of the access log: the control side opens it for the workers, which may open none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from userproxy.model import messages

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from userproxy.worker.handle import WorkerHandle

log = structlog.get_logger("userproxy.workers")

# How soon it is noticed that the file was renamed or removed, as by logrotate.
_LOOK_SECONDS = 1.0

# O_NONBLOCK matters where it is a pipe: one that nobody reads, or not quickly, is not waited for.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
_MODE = 0o640


class LogFile:
    """Lives as long as the pool. When another file is at its place, that is the one.

    Args:
        path: where it is; empty: nowhere, and nothing is done.
        loop: that looks after it.
        everybody: all workers.
    """

    def __init__(
        self, path: str, loop: asyncio.AbstractEventLoop, everybody: Callable[[], Iterable[WorkerHandle]]
    ) -> None:
        self._path = Path(path)
        self._loop = loop
        self._everybody = everybody
        self._fd = -1
        self._failing = False
        self._timer: asyncio.TimerHandle | None = None
        if path:
            self._look()

    def give(self, handle: WorkerHandle) -> None:
        """Have a worker write there."""
        if self._fd >= 0:
            handle.tell(messages.LogTo(), [self._fd])

    def close(self) -> None:
        """Look after it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)
        if self._is_there():
            return
        try:
            fd = os.open(self._path, _FLAGS, _MODE)
        except OSError as error:
            if not self._failing:
                log.error("the access log cannot be opened", file=str(self._path), error=error.strerror)  # noqa: TRY400
            self._failing = True
            return
        self._failing = False
        former, self._fd = self._fd, fd
        for handle in self._everybody():
            self.give(handle)
        if former >= 0:
            os.close(former)

    def _is_there(self) -> bool:
        """Whether the file that is open is the one at its place."""
        if self._fd < 0:
            return False
        with contextlib.suppress(OSError):
            found, ours = self._path.stat(), os.fstat(self._fd)
            return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
        return False
