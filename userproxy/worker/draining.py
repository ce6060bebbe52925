"""The end of all workers: their connections get some time, unless somebody is in a hurry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from userproxy.model import messages
from userproxy.worker.handle import answers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.worker.handle import WorkerHandle

# What a worker may take to end when it is urgent.
HURRY_SECONDS = 5.0


class Draining:
    """Ends workers. Lives as long as the worker pool."""

    def __init__(self) -> None:
        self._begun = self._hurried = False

    async def run(self, handles: Sequence[WorkerHandle], seconds: float) -> int:
        """Give connections this time, and end; returns how many were reset when it was over."""
        self._begun = True
        seconds = 0.0 if self._hurried else seconds
        for handle in handles:
            handle.retiring = True
        order = messages.Drain(seconds=seconds)
        answers = await answers_of(handles, lambda handle: handle.ask(order, seconds=seconds + HURRY_SECONDS))
        for handle in handles:
            handle.kill()  # it has answered, or never will
            handle.leave()
        return sum(part.cut for parts in answers for part in parts if isinstance(part, messages.Drained))

    def hurry(self, handles: Sequence[WorkerHandle]) -> None:
        """Give connections no more time, now or as soon as it is called for."""
        self._hurried = True
        for handle in handles if self._begun else ():
            handle.tell(messages.Drain(seconds=0))
            asyncio.get_running_loop().call_later(HURRY_SECONDS, handle.kill)
