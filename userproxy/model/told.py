"""The parts of docs/ends.md and docs/fields.md that are made of the code. Pure."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import TYPE_CHECKING

from userproxy.model.access_line import AccessLine
from userproxy.model.endings import ENDINGS
from userproxy.model.records import RecordRow
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, SourceStatus, StatusRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import msgspec

_PART = re.compile(r"(<!-- made: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"^    ([a-z_]+): (.*)$")


def renewed(page: str) -> str:
    """A page with its marked parts made anew: what stands from `<!-- made: NAME -->` to `<!-- end -->`."""
    return _PART.sub(lambda part: f"{part[1]}\n{_PARTS[part[2]]()}\n\n{part[3]}", page)


def reasons() -> str:
    """Why connections end."""
    rows = ((f"`{reason.value}`", ending.by.value, ending.text) for reason, ending in ENDINGS.items())
    return _table(("reason", "ended by", "what happened"), rows)


def access_log() -> str:
    """The fields of the access log."""
    return _table(("field", "what it says"), _documented(AccessLine))


def records() -> str:
    """The fields of `connections --ended` that `connections` has not."""
    return _table(("field", "what it says"), _documented(RecordRow))


def fields(kind: type[msgspec.Struct]) -> str:
    """The fields of a row."""
    return _table(("field", "what it says"), _documented(kind))


ROWS: dict[str, type[msgspec.Struct]] = {
    "connections": ConnectionRow,
    "services": ServiceRow,
    "backends": BackendRow,
    "status": StatusRow,
    "source": SourceStatus,
}
"""By the name of its part, each kind of row that docs/fields.md has."""

_PARTS: dict[str, Callable[[], str]] = {
    "reasons": reasons,
    "access-log": access_log,
    "records": records,
    **{name: partial(fields, kind) for name, kind in ROWS.items()},
}


def _documented(kind: type[msgspec.Struct]) -> list[tuple[str, str]]:
    """The fields of a struct, with what its docstring says of them."""
    rows: list[tuple[str, str]] = []
    for line in inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        found = _FIELD.match(line)
        if found:
            rows.append((f"`{found[1]}`", found[2]))
        elif line.strip() and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
    return rows


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
