"""Ending workers that no daemon will take over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from userproxy.model import messages
from userproxy.worker import rendezvous
from userproxy.worker.handle import Callbacks, OrderFailedError, WorkerGoneError, WorkerHandle

if TYPE_CHECKING:
    import socket

# What a worker may take to reset its connections; after that it is made to end.
_SECONDS = 3.0


def end_orphans(prefix: str = rendezvous.PREFIX) -> tuple[int, ...]:
    """End the workers in this network namespace, and with them their connections; returns their pids.

    Only for whoever holds the node's lock: the workers of a daemon that runs are not orphans.

    Args:
        prefix: of the names of their rendezvous sockets.
    """
    return asyncio.run(_end_all(prefix))


async def _end_all(prefix: str) -> tuple[int, ...]:
    visits = rendezvous.connect_to_all(prefix)
    pids = await asyncio.gather(*(_end(visit, pid) for visit, pid in visits))
    return tuple(sorted(pid for pid in pids if pid is not None))


async def _end(visit: socket.socket, pid: int) -> int | None:
    """End one; returns its pid, or None if it does not end, and cannot be killed from here."""
    gone = asyncio.Event()
    handle = WorkerHandle(visit, pid, Callbacks(gone=lambda _: gone.set(), leaving=lambda _: None))
    try:
        await handle.ready(_SECONDS)
        await handle.ask(messages.Drain(seconds=0), seconds=_SECONDS)
    except (WorkerGoneError, OrderFailedError):
        handle.kill()
    try:
        async with asyncio.timeout(_SECONDS):
            await gone.wait()
    except TimeoutError:
        return None
    return handle.pid
