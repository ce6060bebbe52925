"""How late the event loop of the control process is: so long do probes and operators wait."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_EVERY_SECONDS = 0.5


async def watch_lag(
    tell: Callable[[float], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Tell by how many seconds a timer was late, again and again, until cancelled."""
    while True:
        due = clock() + _EVERY_SECONDS
        await sleep(_EVERY_SECONDS)
        tell(max(0.0, clock() - due))
