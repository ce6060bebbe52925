"""Tells workers what to serve, in messages of a bounded size, with the listening sockets that go along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from userproxy.model import messages
from userproxy.worker.channel import MAX_FDS
from userproxy.worker.handle import OrderFailedError, WorkerGoneError
from userproxy.worker.heritage import is_read_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from userproxy.model.service import PoolName
    from userproxy.model.state import Serve
    from userproxy.worker.handle import WorkerHandle
    from userproxy.worker.hearts import Hearts
    from userproxy.worker.listeners import Listeners

log = structlog.get_logger("userproxy.workers")

_T = TypeVar("_T")

# Service ports in one message; each may bring a listening socket.
_CHUNK = min(100, MAX_FDS)


class Teller:
    """Lives as long as the worker pool.

    Args:
        handles: the workers that accept, by their places.
        count: how many there should be.
        listeners: whose sockets they get.
        missed: called with a worker that an order did not reach.
        hearts: by which they speak to the kernel; what that takes is given to them first.
    """

    def __init__(
        self,
        handles: Mapping[int, WorkerHandle],
        count: int,
        listeners: Listeners,
        missed: Callable[[WorkerHandle], object],
        hearts: Hearts,
    ) -> None:
        self._handles = handles
        self._count = count
        self._listeners = listeners
        self._missed = missed
        self._hearts = hearts

    async def tell_all(self, serves: Sequence[Serve], opened: Iterable[PoolName]) -> dict[PoolName, str]:
        """Tell all that accept what to serve; returns what any of them failed at, and why.

        Args:
            serves: what is wanted of some Service ports.
            opened: those among them whose listening socket goes along.
        """
        names = frozenset(opened)
        handles = list(self._handles.values())
        failures = await asyncio.gather(*(self.tell(handle, serves, names) for handle in handles))
        return {name: why for failed in failures for name, why in failed.items()}

    async def tell(
        self, handle: WorkerHandle, serves: Sequence[Serve], opened: Iterable[PoolName]
    ) -> dict[PoolName, str]:
        """Tell a worker what to serve; likewise."""
        names = frozenset(opened)
        index = next((index for index, known in self._handles.items() if known is handle), -1)
        failed: dict[PoolName, str] = {}
        self._hearts.vouch(handle, serves)
        for part in chunks(serves):
            taken = (one for one in part if one.name in names and is_read_by(one, index, self._count))
            opens = tuple(serve.name for serve in taken)
            fds = [self._listeners.sockets[name].fileno() for name in opens]
            why = await self.order(handle, messages.Apply(serves=tuple(part), opens=opens), fds)
            if not handle.is_alive:
                break
            if why:
                failed |= dict.fromkeys((serve.name for serve in part), why)
        return failed

    async def order(self, handle: WorkerHandle, order: messages.Orders, fds: Sequence[int] = ()) -> str:
        """Have an order applied; returns why it was not. A worker that misses one is replaced."""
        try:
            await handle.ask(order, fds)
        except WorkerGoneError as error:
            log.error("a worker missed an order", reason=str(error))  # noqa: TRY400 - it is being replaced
            self._missed(handle)
        except (OrderFailedError, OSError) as error:
            return str(error)
        return ""

    def inform(self, retiring: Iterable[WorkerHandle], orders: Iterable[messages.Apply]) -> None:
        """Let workers that retire know what becomes of their connections' backends; nobody waits for them."""
        handles = [handle for handle in retiring if not handle.is_silent]  # or all would be kept for it
        for order in orders:
            for handle in handles:
                handle.tell(order)


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """In parts of the size of a message."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
