"""Waiting for what others do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until it is so.

    Raises:
        TimeoutError: it is not, however long one waits.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - it is no event of ours
            await asyncio.sleep(0)
