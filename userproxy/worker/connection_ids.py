"""How connections are called by an operator, over all workers: `18253-4` is the fourth of worker 18253."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.rows import ConnectionRow

# More than the number of a connection has.
_DIGITS = 19


def named(row: ConnectionRow, pid: int) -> ConnectionRow:
    """A worker's row with an id that no other worker's has."""
    return msgspec.structs.replace(row, id=f"{pid}-{row.id}")


def numbers_of(pid: int, ids: Iterable[str]) -> tuple[int, ...]:
    """Those of the ids that are a worker's, as it calls them itself; whatever else is said is nobody's."""
    split = (one.split("-", 1) for one in ids if one.count("-") == 1)
    return tuple(int(number) for owner, number in split if owner == str(pid) and _is_number(number))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS
