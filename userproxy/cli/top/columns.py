"""What stands in a line, at the width that there is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from userproxy.cli.tables import printable
from userproxy.cli.top.arrange import GroupBy, Line, SortBy
from userproxy.model.human import human_age, human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from userproxy.cli.top.reading import Flow

GAP = 1
_LAST = 1
"""As what is kept: only where the others have as much as is good for them."""
_CUT = "…"


class Field(msgspec.Struct, frozen=True):
    """One column.

    Attributes:
        header: in capitals.
        text: of a line.
        least: the characters that it needs.
        good: with which most of its texts are whole; each field gets as many before one gets more.
        most: that it makes use of, where there is room.
        keep: where there is no room, the fields with the lowest figure are left out first.
        right: whether it is aligned to the right.
        sort_by: what is sorted by it, if anything is.
        state: whether it has the colour of the state.
        cut_left: whether a text that is too long loses its beginning, as the name of a namespace is.
    """

    header: str
    text: Callable[[Line], str]
    least: int
    good: int = 0
    most: int = 0
    keep: int = 9
    right: bool = False
    sort_by: SortBy | None = None
    state: bool = False
    cut_left: bool = False


def _one(line: Line) -> Flow:
    return line.flows[0]


def _total(line: Line, field: str) -> str:
    """So many bytes; nothing where the kernel does not count them."""
    known = [flow.row for flow in line.flows if field not in flow.row.unknown]
    return human_bytes(sum(getattr(row, field) for row in known)) if known else ""


def _rate(line: Line) -> str:
    if all("bytes_up" in flow.row.unknown for flow in line.flows):
        return ""
    return human_bytes(int(line.rate))


def _age(line: Line) -> str:
    return "" if all("age_seconds" in flow.row.unknown for flow in line.flows) else human_age(line.age)


_FIGURES = (
    Field("AGE", _age, 6, right=True, sort_by=SortBy.AGE),
    Field("IDLE", lambda line: human_age(line.idle), 6, right=True, sort_by=SortBy.IDLE),
    Field("UP", lambda line: _total(line, "bytes_up"), 7, keep=2, right=True, sort_by=SortBy.BYTES),
    Field("DOWN", lambda line: _total(line, "bytes_down"), 7, keep=3, right=True, sort_by=SortBy.BYTES),
    Field("RATE/s", _rate, 7, right=True, sort_by=SortBy.RATE),
)

_CONNECTION = (
    Field("ID", lambda line: line.key, 10, 10, 14, keep=_LAST),
    Field("SERVICE", lambda line: _one(line).row.service, 14, 27, 45, cut_left=True),
    Field("CLIENT", lambda line: _one(line).row.client, 15, 19, 47),
    Field("BACKEND", lambda line: _one(line).row.backend, 14, 16, 47),
    Field("STATE", lambda line: _one(line).row.state, 11, 11, 16, state=True),
    *_FIGURES,
)

_GROUP = (
    Field("", lambda line: line.key, 28, 28, 60),
    Field("CONNS", lambda line: f"{len(line.flows):,}", 6, right=True),
    Field("STATES", lambda line: states(line.states), 20, 20, 60, keep=_LAST, state=True),
    *_FIGURES,
)


def states(counts: Mapping[str, int]) -> str:
    """How many are in each, the most frequent first."""
    ordered = sorted(counts, key=lambda state: (-counts[state], state))
    return " ".join(f"{counts[state]:,} {state}" for state in ordered)


class Layout(msgspec.Struct, frozen=True):
    """The fields that fit, with their widths."""

    fields: tuple[Field, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, group_by: GroupBy, width: int) -> Layout:
        """The one for so many columns of a terminal."""
        fields = list(_CONNECTION if group_by is GroupBy.NOTHING else _GROUP)
        if _needed(fields, good=True) > width:
            fields = [field for field in fields if field.keep != _LAST]
        while len(fields) > 1 and _needed(fields) > width:
            fields.remove(min(fields, key=lambda field: field.keep))
        widths = [field.least for field in fields]
        for wanted in ([field.good for field in fields], [field.most for field in fields]):
            for _ in range(width - _needed(fields)):
                growing = [index for index, most in enumerate(wanted) if widths[index] < most]
                if growing and sum(widths) + GAP * (len(fields) - 1) < width:
                    widths[min(growing, key=lambda index: widths[index] - fields[index].least)] += 1
        return cls(tuple(fields), tuple(widths))

    def headers(self, first: str, sort_by: SortBy, *, reverse: bool) -> list[str]:
        """The header of each field; the one that is sorted by has an arrow."""
        arrow = "▲" if reverse != (sort_by is SortBy.IDLE) else "▼"
        names = [field.header or first for field in self.fields]
        marked = [
            f"{name}{arrow}" if field.sort_by is sort_by else name
            for name, field in zip(names, self.fields, strict=True)
        ]
        return self._aligned(marked, headers=True)

    def cells(self, line: Line) -> list[str]:
        """The text of each field, as wide as it is."""
        return self._aligned([printable(field.text(line)) for field in self.fields])

    def _aligned(self, texts: Sequence[str], *, headers: bool = False) -> list[str]:
        aligned = []
        for text, field, width in zip(texts, self.fields, self.widths, strict=True):
            fitting = cut(text, width, left=field.cut_left and not headers)
            aligned.append(fitting.rjust(width) if field.right else fitting.ljust(width))
        return aligned


def cut(text: str, width: int, *, left: bool = False) -> str:
    """As much of a text as fits, of its end if it is cut on the left; what is left out is marked."""
    if len(text) <= width:
        return text
    return _CUT + text[len(text) - width + 1 :] if left else text[: width - 1] + _CUT


def _needed(fields: Sequence[Field], *, good: bool = False) -> int:
    widths = (max(field.least, field.good if good else 0) for field in fields)
    return sum(widths) + GAP * (len(fields) - 1)
