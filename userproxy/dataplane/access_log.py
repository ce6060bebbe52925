"""The access log: a line for each connection that ends, whatever the level of the ordinary log is."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

from userproxy.dataplane.log_writer import LineWriter
from userproxy.model.access_line import as_json, as_text, line_of
from userproxy.model.endings import ENDINGS, Reason

if TYPE_CHECKING:
    import asyncio

    from userproxy.model.counters import Counters
    from userproxy.model.records import Record

log = structlog.get_logger(__name__)

# Where lines are lost, many are: it is said from time to time.
_TELL_SECONDS = 10.0

ALL, ERRORS, OFF = "all", "errors", "off"


class AccessLog:
    """Where the ends of connections are logged. Lives as long as the data plane.

    Args:
        which: `all`, or `errors`: those that did not end as connections should.
        file: its path, for messages: `write_to` brings it; empty: stderr.
        style: `json` or `console`.
        loop: that drives the data plane.
        counters: of this process.
    """

    def __init__(
        self, which: str, file: str, style: str, loop: asyncio.AbstractEventLoop, counters: Counters
    ) -> None:
        self._reasons = frozenset(
            reason for reason, ending in ENDINGS.items() if which == ALL or not ending.orderly
        )
        self._render = as_json if style == "json" else as_text
        self._writer = LineWriter(file, loop)
        self._counters = counters
        self._told, self._told_at = 0, -_TELL_SECONDS

    def wants(self, reason: Reason) -> bool:
        """Whether an end for this reason is logged."""
        return reason in self._reasons

    def tell(self, record: Record) -> None:
        """Log an end. Nobody's connection waits for that."""
        self._writer.add(self._render(line_of(record)))
        if self._writer.dropped != self._told:
            self._tell_of_drops()

    def write_to(self, fd: int) -> None:
        """Write to this file from now on, and own it."""
        self._writer.write_to(fd)

    def close(self) -> None:
        """Write what waits, as far as a moment allows."""
        self._writer.close()
        self._tell_of_drops()

    def _tell_of_drops(self) -> None:
        dropped, now = self._writer.dropped, monotonic()
        self._counters.access_log_dropped = dropped
        if dropped > self._told and now - self._told_at >= _TELL_SECONDS:
            reason = self._writer.error or "whoever reads it, or the disk, is too slow"
            log.warning("lines of the access log are lost", lines=dropped - self._told, reason=reason)
            self._told, self._told_at = dropped, now
