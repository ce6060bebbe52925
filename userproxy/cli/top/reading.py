"""What one look at the daemon comes to, compared with the one before. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.rows import ConnectionRow

if TYPE_CHECKING:
    from collections.abc import Sequence


class Flow(msgspec.Struct, frozen=True, gc=False):
    """A connection, and what it carries.

    Attributes:
        row: as the daemon tells it.
        rate: bytes a second in both directions, since the last look; on average if there was none.
        text: all that a filter finds it by, in lower case.
    """

    row: ConnectionRow
    rate: float
    text: str


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """All connections together.

    Attributes:
        connections: how many there are.
        opened: a second.
        ended: a second.
        up: bytes a second to backends.
        down: bytes a second to clients.
        states: how many connections are in each.
    """

    connections: int = 0
    opened: float = 0.0
    ended: float = 0.0
    up: float = 0.0
    down: float = 0.0
    states: Mapping[str, int] = {}


class Meter:
    """Compares each look at the daemon with the one before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}
        self._at: float | None = None

    def read(self, rows: Sequence[ConnectionRow], now: float) -> tuple[list[Flow], Totals]:
        """Take in what was seen now, in seconds of any clock that does not jump."""
        before, seconds = self._before, 0.0 if self._at is None else max(now - self._at, 1e-3)
        flows, seen = [], {}
        opened = up = down = 0
        for row in rows:
            known_up, known_down = row.bytes_up or 0, row.bytes_down or 0
            last = before.get(row.id)
            if last is not None:
                more_up, more_down = known_up - last[0], known_down - last[1]
                rate = (more_up + more_down) / seconds
            else:
                new = row.age_seconds <= seconds
                opened += new
                more_up, more_down = (known_up, known_down) if new else (0, 0)
                rate = (known_up + known_down) / max(row.age_seconds, seconds, 1.0)
            up, down = up + more_up, down + more_down
            seen[row.id] = known_up, known_down
            text = f"{row.id} {row.service} {row.client} {row.frontend} {row.backend} {row.state}".lower()
            flows.append(Flow(row, rate, text))
        ended = sum(one not in seen for one in before)
        self._before, self._at = seen, now
        states = Counter(row.state for row in rows)
        if not seconds:
            return flows, Totals(connections=len(rows), states=states)
        rates = [figure / seconds for figure in (opened, ended, up, down)]
        return flows, Totals(
            connections=len(rows),
            opened=rates[0],
            ended=rates[1],
            up=rates[2],
            down=rates[3],
            states=states,
        )
