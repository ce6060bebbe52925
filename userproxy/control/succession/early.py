"""A source that is followed before the daemon has the node: what it says is kept until somebody takes it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from userproxy.model.snapshot import Notice, Problem, Snapshot
    from userproxy.sources import Source


class EarlySource:
    """Another source; `run` begins with the last Snapshot that came so far."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._latest: Snapshot | None = None
        self._publish: Callable[[Snapshot], None] | None = None

    @property
    def has_spoken(self) -> bool:
        """Whether a Snapshot has come."""
        return self._latest is not None

    @property
    def kind(self) -> str:
        """Of `Source`."""
        return self._source.kind

    @property
    def synced(self) -> bool:
        """Of `Source`."""
        return self._source.synced

    @property
    def problem(self) -> Problem | None:
        """Of `Source`."""
        return self._source.problem

    def stale_seconds(self) -> float:
        """Of `Source`."""
        return self._source.stale_seconds()

    def tell(self, problems: Sequence[Problem]) -> None:
        """Of `Source`."""
        self._source.tell(problems)

    def announce(self, notice: Notice) -> None:
        """Of `Source`."""
        self._source.announce(notice)

    async def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Of `Source`."""
        if self._latest is not None:
            publish(self._latest)
        self._publish = publish
        try:
            await asyncio.Event().wait()
        finally:
            self._publish = None

    async def follow(self) -> None:
        """Follow the other source, until cancelled."""
        await self._source.run(self._take)

    def _take(self, snapshot: Snapshot) -> None:
        self._latest = snapshot
        if self._publish is not None:
            self._publish(snapshot)


@contextlib.asynccontextmanager
async def followed(source: Source) -> AsyncIterator[EarlySource]:
    """Follow a source as long as the context lasts."""
    early = EarlySource(source)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(early.follow())
        try:
            yield early
        except Exception as error:  # noqa: BLE001 - raised below: the group would wrap it in a group
            failure = error
        finally:
            following.cancel()
    if failure is not None:
        raise failure
