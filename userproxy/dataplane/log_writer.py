"""Writes lines to a file or a pipe from a thread of its own: a full disk or a slow reader holds nobody up.

| what happens | then |
|---|---|
| more waits than there is room for | further lines are dropped, and counted |
| the disk is full, or a pipe has no room | what was to be written is dropped, and counted |
| another file is to be written to | what waits goes to the former one, what comes to the other one |
| several processes write to one file | each write is of whole lines, at its end: none is torn (O_APPEND) |
"""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Sequence

ROOM_BYTES = 4 << 20
"""For lines that wait to be written."""

# Lines are written together: a system call for each would cost more than to make it.
_DELAY_SECONDS = 0.1
_BATCH_BYTES = 1 << 16

# What a pipe takes as a whole, or not at all: PIPE_BUF, pipe(7).
_AT_ONCE = 4096

_CLOSE_SECONDS = 1.0

_STDERR = 2


class LineWriter:
    """Lives as long as the log; its thread begins with the first line.

    Args:
        path: of a file that `write_to` brings, for messages; empty: stderr.
        loop: on which lines are added.

    Attributes:
        error: why the last lines were not written; empty if they were.
    """

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.error = ""
        self._path = path
        self._loop = loop
        self._lines: list[bytes] = []
        self._batches: queue.SimpleQueue[list[bytes] | int | None] = queue.SimpleQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._fd = -1 if path else _STDERR
        self._torn = False
        self._has_file = not path
        # Each is counted on one side alone, the loop's or the thread's: no lock is needed.
        self._added = self._taken = 0
        self._refused = self._lost = 0

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._refused + self._lost

    def add(self, line: bytes) -> None:
        """Have a line written, in a moment."""
        if self._added - self._taken + len(line) > ROOM_BYTES:
            self._refused += 1
            return
        self._added += len(line)
        self._lines.append(line)
        if self._timer is None:
            self._timer = self._loop.call_later(_DELAY_SECONDS, self._hand_on)

    def write_to(self, fd: int) -> None:
        """Write to this file from now on, and own it."""
        if self._timer is not None and self._has_file:
            self._timer.cancel()
            self._hand_on()
        self._has_file = True
        self._batches.put(fd)

    def close(self) -> None:
        """Write what waits, as far as a moment allows."""
        if self._timer is not None:
            self._timer.cancel()
            self._hand_on()
        if self._thread is not None:
            self._batches.put(None)
            self._thread.join(_CLOSE_SECONDS)
            self._thread = None

    def _hand_on(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        self._batches.put(lines)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="access log", daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, int):
                self._leave()
                self._fd = batch
                continue
            for part in _parts(batch, _BATCH_BYTES if self._path else _AT_ONCE):
                self._write(part)
        self._leave()

    def _write(self, lines: Sequence[bytes]) -> None:
        data = b"".join(lines)
        # Somebody's line, ours or another process's, may have been cut short when there was no room.
        torn = b"\n" if self._torn else b""
        try:
            written = os.write(self._fd, torn + data)
        except OSError as error:
            written = 0
            reason = error.strerror if self._fd >= 0 else "cannot be opened"
            self.error = f"{self._path or 'stderr'}: {reason}"
        if written < len(torn) + len(data):
            self._torn = bool(self._path)
            self._lost += len(lines)
        else:
            self._torn, self.error = False, ""
        self._taken += len(data)

    def _leave(self) -> None:
        if self._path and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parts(lines: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    """Whole lines together, as many as so many bytes hold, and one at least."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > most:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part
