"""Where Services and endpoints come from: each source produces whole Snapshots, and the latest wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from userproxy.model.rows import SourceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.model.snapshot import Notice, Problem, Snapshot


class Source(Protocol):
    """A source, for as long as the daemon runs. Everything happens on the loop's thread."""

    @property
    def kind(self) -> str:
        """For `userproxy status`."""

    @property
    def synced(self) -> bool:
        """Whether everything has been read at least once."""

    @property
    def problem(self) -> Problem | None:
        """Why it cannot be followed now, if so; not what is wrong with single objects or files."""

    def stale_seconds(self) -> float:
        """How old its data may be: 0 while what is there is known to be in effect."""

    async def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Publish a Snapshot once synced, and a new one after each change, until cancelled."""

    def tell(self, problems: Sequence[Problem]) -> None:
        """Let the owners of the Services know what is wrong now, where the source has a way to."""

    def announce(self, notice: Notice) -> None:
        """Let everybody know of something that happens to a Service, likewise."""


def status_of(source: Source) -> SourceStatus:
    """What `userproxy status` and `/healthz` tell of a source."""
    return SourceStatus(
        kind=source.kind,
        synced=source.synced,
        stale_seconds=round(source.stale_seconds(), 3),
        problem=str(source.problem or ""),
    )
