"""What is asked of each worker in turn, and what they say together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from userproxy.model import messages
from userproxy.model.connection_id import ConnectionId, numbers_of
from userproxy.worker.handle import OrderFailedError, WorkerGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.rows import ConnectionRow
    from userproxy.worker.handle import WorkerHandle

log = structlog.get_logger("userproxy.workers")


async def connections(
    handles: Iterable[WorkerHandle], wanted: ConnectionFilter
) -> AsyncIterator[list[ConnectionRow]]:
    """The live connections that match."""
    for handle in handles:
        try:
            parts = await handle.ask(messages.ListConnections(wanted=wanted))
        except (WorkerGoneError, OrderFailedError) as error:
            log.warning("connections are missing from a listing", reason=str(error))
            continue
        for part in parts:
            if isinstance(part, messages.ConnectionListing):
                yield list(part.rows)


async def kill(handles: Iterable[WorkerHandle], ids: Sequence[str] | None, wanted: ConnectionFilter) -> int:
    """Reset those with these ids (None: any) that match; returns how many there were."""
    chosen = None if ids is None else {ConnectionId.parse(one) for one in ids} - {None}
    count = 0
    for handle in handles:
        numbers = None if chosen is None else numbers_of(chosen, handle.name)
        if numbers is None or numbers:
            with contextlib.suppress(WorkerGoneError, OrderFailedError):  # its connections went with it
                parts = await handle.ask(messages.Kill(numbers=numbers, wanted=wanted))
                count += sum(part.count for part in parts if isinstance(part, messages.Killed))
    return count


async def fullness_of(handle: WorkerHandle, seconds: float) -> str | None:
    """Why a worker has clients go elsewhere, as it says itself; None if it does not answer in time.

    That it does not is no reason to give it up, as it is where somebody waits for an order to be applied.
    """
    try:
        async with asyncio.timeout(seconds):
            parts = await handle.ask(messages.Count())
    except (WorkerGoneError, OrderFailedError, TimeoutError):
        return None
    return next((part.full for part in parts if isinstance(part, messages.Totals)), "")
