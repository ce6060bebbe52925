"""What a daemon does that has handed the node over: it stays until the workers that it started have ended.

All that runs in a container ends with its first process, and the connections of these workers would too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

log = structlog.get_logger("userproxy")

# What a worker may take to reset its connections, and end.
_HURRY_SECONDS = 5.0


class Outlasted:
    """The workers of this process, which take orders from another daemon.

    Args:
        pids: theirs.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._files: dict[int, int] = {}
        self._over = asyncio.Event()
        self._told = asyncio.Event()
        self._hurried = asyncio.Event()
        for pid in pids:
            with contextlib.suppress(OSError):  # it has ended
                file = os.pidfd_open(pid)
                self._files[file] = pid
                self._loop.add_reader(file, self._on_end, file)
        self._look()

    def end(self) -> None:
        """Give connections their last time; told again, no more time at all."""
        if self._told.is_set():
            self._hurried.set()
        self._told.set()

    def forget(self) -> bool:
        """Think of them no more; returns whether they were to end."""
        for file in list(self._files):
            self._loop.remove_reader(file)
            os.close(file)
        self._files.clear()
        return self._told.is_set()

    async def wait(self, drain_seconds: float, idle_seconds: float = 0.0) -> None:
        """Return when all have ended.

        Args:
            drain_seconds: how long connections may go on after `end`; then they are reset.
            idle_seconds: how long to stay after that, unless told to end.
        """
        await self._all_ended(drain_seconds)
        if not self._told.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle_seconds):
                    await self._told.wait()

    async def _all_ended(self, drain_seconds: float) -> None:
        log.info("this node is another daemon's now: staying for connections", workers=len(self._files))
        await _first(self._over, self._told)
        if not self._over.is_set():
            log.info("told to stop", drain_seconds=drain_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await _first(self._over, self._hurried)
        for number in (signal.SIGUSR1, signal.SIGKILL):
            if not self._over.is_set():
                log.info("connections are reset", workers=len(self._files))
                self._send(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HURRY_SECONDS):
                        await self._over.wait()

    def _send(self, number: signal.Signals) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):  # it has ended, or is not ours to end
                signal.pidfd_send_signal(file, number)

    def _on_end(self, file: int) -> None:
        self._loop.remove_reader(file)
        os.close(file)
        with contextlib.suppress(ChildProcessError):  # it may be the child of an earlier process
            os.waitpid(self._files.pop(file), os.WNOHANG)
        self._look()

    def _look(self) -> None:
        if not self._files:
            self._over.set()


async def _first(*events: asyncio.Event) -> None:
    """Wait for one of them."""
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
