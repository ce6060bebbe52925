"""What the workers remember of connections that are over, and what becomes of it when one of them ends."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import structlog

from userproxy.model import messages
from userproxy.model.connection_id import KERNEL_PREFIX
from userproxy.worker.handle import OrderFailedError, WorkerGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from userproxy.model.filter import RecordFilter
    from userproxy.model.records import RecordRow
    from userproxy.worker.handle import WorkerHandle

# Records in one message.
_CHUNK = 200

log = structlog.get_logger("userproxy.workers")


class Recollection:
    """The records of all workers. Lives as long as their pool.

    Records live in the workers, which outlive the control process. A worker that ends tells its own, and they
    go on to those that serve now, in turn; each keeps what it has room for. A worker that is killed takes its
    records with it. Where nobody serves any more, as the daemon stops, they are kept here.

    Args:
        everybody: all workers, those that retire included.
        heirs: the workers that serve.

    Attributes:
        unclaimed: records that no worker has; `settle` gives them to one.
    """

    def __init__(
        self, everybody: Callable[[], Sequence[WorkerHandle]], heirs: Callable[[], Sequence[WorkerHandle]]
    ) -> None:
        self._everybody = everybody
        self._heirs = heirs
        self._turn = itertools.count()
        self.unclaimed: list[bytes] = []

    async def records(self, wanted: RecordFilter) -> AsyncIterator[list[RecordRow]]:
        """The connections that match, live or over, with all that is known of them."""
        known: set[tuple[str, str]] = set()
        # Those that retire come first: what one of them leaves meanwhile, its heir tells, maybe once more.
        for handle in reversed(self._everybody()):
            try:
                parts = await handle.ask(messages.ListRecords(wanted=wanted))
            except (WorkerGoneError, OrderFailedError) as error:
                log.warning("connections are missing from a listing", reason=str(error))
                continue
            for part in parts:
                if isinstance(part, messages.RecordListing):
                    yield [row for row in part.rows if _key(row) not in known]
                    known.update(map(_key, part.rows))

    def pass_on(self, handle: WorkerHandle, part: messages.Records) -> None:
        """A worker is about to end: others keep what it remembered."""
        self.unclaimed += part.records
        self.settle(handle)

    def keep(self, records: Sequence[bytes]) -> None:
        """Have the workers keep what somebody else has remembered."""
        self.unclaimed += records
        self.settle()

    def settle(self, leaving: WorkerHandle | None = None) -> None:
        """Give those that nobody has to a worker that serves, if there is one beside who has left them."""
        heirs = [
            heir
            for heir in self._heirs()
            if heir is not leaving and heir.is_alive and not heir.is_silent and not heir.retiring
        ]
        if heirs and self.unclaimed:
            for start in range(0, len(self.unclaimed), _CHUNK):
                part = tuple(self.unclaimed[start : start + _CHUNK])
                heirs[next(self._turn) % len(heirs)].tell(messages.KeepRecords(records=part))
            self.unclaimed.clear()


def _key(row: RecordRow) -> tuple[str, str]:
    """What tells a connection from others: the kernel may give its number to another one later on."""
    return row.id, row.ended_at if row.id.startswith(KERNEL_PREFIX) else ""
