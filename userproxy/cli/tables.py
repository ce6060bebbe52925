"""Rows as text: JSON for programs, plain columns for awk and grep, a table that fits a person's terminal.

rich is imported only when stdout is a terminal: without it a command starts in half the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = TypeVar("Row")

GAP = 2
"""Spaces between two columns."""

ALWAYS = 99

EMPTY = "-"
"""In place of an empty cell, so that awk counts the same fields in every line."""

STYLES = {
    "established": "green",
    "up": "green",
    "connecting": "yellow",
    "client-finished": "yellow",
    "backend-finished": "yellow",
    "half-closed": "yellow",
    "closing": "yellow",
    "waiting": "yellow",
    "draining": "yellow",
    "terminating": "yellow",
    "down": "red",
    "ejected": "red",
}


class Column(msgspec.Struct, Generic[Row], frozen=True):
    """One column of a table.

    Attributes:
        header: in capitals, one word.
        cell: the text of a row's cell.
        keep: where a terminal is too narrow, the columns with the lowest figure are left out first; those
            with `ALWAYS` stay.
        breaks: characters after which a cell may be broken into lines.
        flexible: whether cells are broken before a column is left out, or only if that is not enough.
        right: whether it is aligned to the right.
        wide: whether only `-o wide` shows it.
    """

    header: str
    cell: Callable[[Row], str]
    keep: int = ALWAYS
    right: bool = False
    wide: bool = False
    breaks: str = ""
    flexible: bool = False


class Grid(msgspec.Struct, frozen=True):
    """A table as text, not laid out yet: the cells of each row are those of the columns, in order."""

    columns: tuple[Column[Any], ...]
    cells: tuple[tuple[str, ...], ...]

    def widths(self) -> list[int]:
        """The width that each column needs."""
        return [
            max([len(column.header), *(len(row[index]) for row in self.cells)])
            for index, column in enumerate(self.columns)
        ]


def grid(columns: Sequence[Column[Row]], rows: Iterable[Row], *, wide: bool = False) -> Grid:
    """Fill in the columns that are wanted."""
    shown = tuple(column for column in columns if wide or not column.wide)
    return Grid(shown, tuple(tuple(printable(column.cell(row)) for column in shown) for row in rows))


def json_text(rows: Sequence[msgspec.Struct]) -> str:
    """An array, each row on a line of its own."""
    lines = ",\n".join(msgspec.json.encode(row).decode() for row in rows)
    return f"[\n{lines}\n]" if lines else "[]"


def yaml_text(rows: Sequence[msgspec.Struct]) -> str:
    """A list of mappings, with the fields in the order of JSON."""
    return _yaml(list(rows))


def mapping_text(row: msgspec.Struct) -> str:
    """One mapping, likewise."""
    return _yaml(row)


def _yaml(value: object) -> str:
    import yaml  # noqa: PLC0415 - slow to import

    plain = msgspec.json.decode(msgspec.json.encode(value))  # lists in the place of tuples
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.rstrip("\n")


def plain_text(table: Grid, *, headers: bool = True) -> str:
    """Every column at its full width, no colour, no box: for programs."""
    widths = table.widths()
    header = [tuple(column.header for column in table.columns)] if headers else []
    return "\n".join(_plain_line(table.columns, widths, cells) for cells in (*header, *table.cells))


def terminal_table(table: Grid, width: int, *, whole: bool = False, headers: bool = True) -> RenderableType:
    """A table for a terminal of so many columns.

    What does not fit is left out column by column and named below the table; if even the last few are too
    wide, their cells are broken into lines. Nothing is cut short.

    Args:
        table: what to show.
        width: of the terminal.
        whole: leave no column out and break nothing: the terminal wraps the lines.
        headers: whether it begins with the names of the columns.
    """
    from rich.console import Group  # noqa: PLC0415 - rich is slow to import
    from rich.table import Table  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    shown = dict(enumerate(table.widths())) if whole else _layout(table, width)
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=headers)
    for index, column_width in shown.items():
        column = table.columns[index]
        justify: Literal["left", "right"] = "right" if column.right else "left"
        drawn.add_column(column.header, justify=justify, width=column_width, overflow="fold")
    for cells in table.cells:
        drawn.add_row(
            *(
                Text(broken(cells[index], table.columns[index].breaks, column_width), _style(cells[index]))
                for index, column_width in shown.items()
            )
        )
    notes = _notes(table, shown)
    return Group(drawn, *(Text(note, style="dim") for note in notes)) if notes else drawn


def printable(text: str) -> str:
    """The text of a cell: never empty, and without characters that could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text) or EMPTY


def broken(text: str, breaks: str, width: int) -> str:
    """Break text into lines of at most width, after one of the characters in breaks wherever possible."""
    lines = [""]
    for piece in _pieces(text, breaks):
        rest = piece
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        while len(rest.rstrip()) > width:
            lines[-1:] = [rest[:width], ""]
            rest = rest[width:]
        lines[-1] += rest
    return "\n".join(line.rstrip() for line in lines)


def _plain_line(columns: Sequence[Column[Any]], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    )
    return (" " * GAP).join(padded).rstrip()


def _layout(table: Grid, width: int) -> dict[int, int]:
    """The columns to show, by index, each with its width."""
    natural = table.widths()
    floors = [
        max(len(piece.rstrip()) for text in (column.header, *cells) for piece in _pieces(text, column.breaks))
        for column, cells in zip(table.columns, _transposed(table), strict=True)
    ]
    shown = {index: natural[index] for index in range(len(natural))}
    least = [floors[i] if column.flexible else natural[i] for i, column in enumerate(table.columns)]
    while sum(least[index] for index in shown) + GAP * (len(shown) - 1) > width:
        candidate = min(shown, key=lambda index: table.columns[index].keep)
        if table.columns[candidate].keep == ALWAYS:
            break
        del shown[candidate]
    _shrink(shown, (least, floors, [1] * len(floors)), width - GAP * (len(shown) - 1))
    return shown


def _shrink(shown: dict[int, int], limits: Sequence[Sequence[int]], room: int) -> None:
    """Narrow the widest columns until all fit: down to the first limits, else to the next ones."""
    for limit in limits:
        while sum(shown.values()) > room:
            above = [index for index, width in shown.items() if width > limit[index]]
            if not above:
                break
            shown[max(above, key=lambda index: shown[index])] -= 1


def _transposed(table: Grid) -> list[tuple[str, ...]]:
    return [tuple(row[index] for row in table.cells) for index in range(len(table.columns))]


def _pieces(text: str, breaks: str) -> list[str]:
    pieces = [""]
    for char in text:
        pieces[-1] += char
        if char in breaks:
            pieces.append("")
    return pieces if pieces[-1] or len(pieces) == 1 else pieces[:-1]


def _style(text: str) -> str:
    return STYLES.get(text, "")


def _notes(table: Grid, shown: Container[int]) -> list[str]:
    hidden = [column.header for index, column in enumerate(table.columns) if index not in shown]
    return [f"not shown at this width: {', '.join(hidden)} (-o wide shows all)"] if hidden else []
