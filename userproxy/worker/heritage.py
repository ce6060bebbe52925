"""UDP clients' sessions on their way from a worker that goes to the one that takes its place.

Exactly one worker reads a UDP listener, since the kernel would spread a client's datagrams over several. It
is chosen by the host port. Before another one reads there, the former one gives up its sessions: the sockets
come with the messages, so pods and clients notice nothing. What clients send meanwhile waits in the listener.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from userproxy.model import messages
from userproxy.model.service import Protocol
from userproxy.worker.handle import OrderFailedError, WorkerGoneError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.heritage import SessionState
    from userproxy.model.service import PoolName
    from userproxy.model.state import Serve
    from userproxy.worker.handle import WorkerHandle

log = structlog.get_logger("userproxy.workers")

# Sessions in one message; each brings a socket.
_CHUNK = 100

# What a worker may take to give up its sessions: their clients wait.
_SECONDS = 3.0


def is_read_by(serve: Serve, index: int, workers: int) -> bool:
    """Whether a worker takes the clients of a Service port: each does of TCP, and one of UDP.

    Args:
        serve: the Service port.
        index: of the worker.
        workers: how many there are.
    """
    return not is_udp(serve) or serve.listener.port % workers == index


def is_udp(serve: Serve) -> bool:
    """Whether it is a listener for datagrams."""
    return serve.protocol is Protocol.UDP


class Heritage:
    """Sessions that have been given up, and that nobody has yet. Lives as long as the worker pool."""

    def __init__(self) -> None:
        self._sessions: list[tuple[SessionState, int]] = []

    async def collect(self, handles: Iterable[WorkerHandle]) -> None:
        """Have workers give up their sessions. They take no more datagrams of clients from then on."""
        await asyncio.gather(*map(self._ask, handles))

    def give(self, handle: WorkerHandle, names: Iterable[PoolName]) -> None:
        """Have a worker go on with the sessions of these pools, once it is told of their listeners."""
        wanted = frozenset(names)
        given = [one for one in self._sessions if one[0].pool in wanted]
        self._sessions = [one for one in self._sessions if one[0].pool not in wanted]
        try:
            for start in range(0, len(given), _CHUNK):
                part = given[start : start + _CHUNK]
                states = tuple(state for state, _ in part)
                handle.tell(messages.InheritSessions(sessions=states), [fd for _, fd in part])
        except OSError as error:
            log.warning("sessions of UDP clients begin anew", error=str(error))
        finally:
            _close(given)

    def close(self) -> None:
        """Nobody is to have what is left."""
        _close(self._sessions)
        self._sessions.clear()

    async def _ask(self, handle: WorkerHandle) -> None:
        try:
            await handle.ask(messages.YieldSessions(), seconds=_SECONDS)
        except (WorkerGoneError, OrderFailedError) as error:
            log.warning("sessions of UDP clients begin anew", reason=str(error))
        self._sessions += handle.yielded
        handle.yielded = []


def _close(sessions: Iterable[tuple[SessionState, int]]) -> None:
    for _, fd in sessions:
        os.close(fd)
