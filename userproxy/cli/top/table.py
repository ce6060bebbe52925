"""The table: draws the lines that are in sight and no others, so that thousands of them cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from userproxy.cli.tables import STYLES
from userproxy.cli.top.arrange import GroupBy, Wanted
from userproxy.cli.top.columns import GAP, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.binding import BindingType

    from userproxy.cli.top.arrange import Line

_HEADER = Style(bold=True, reverse=True)
_PLAIN = Style()
_CURSOR = Style(bold=True, bgcolor="grey30")
_FADED = Style(dim=True)


class ConnectionTable(ScrollView, can_focus=True):
    """Lines of connections, with a cursor that stays with its line when the order changes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "edge(0)", show=False),
        Binding("end", "edge(1)", show=False),
    ]

    class Moved(Message):
        """The cursor is on another line."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[Line] = ()
        self._wanted = Wanted()
        self._layout_now = Layout.of(GroupBy.NOTHING, 80)
        self._cursor = 0
        self._chosen = ""
        self.faded = False

    @property
    def _width(self) -> int:
        """Of what is beside the scroll bar."""
        return self.scrollable_content_region.width

    @property
    def line(self) -> Line | None:
        """The one under the cursor."""
        return self._lines[self._cursor] if self._cursor < len(self._lines) else None

    def show(self, lines: Sequence[Line], wanted: Wanted) -> None:
        """Show other lines, or the same in another order."""
        if wanted.group_by is not self._wanted.group_by:
            self._chosen = ""
        self._lines, self._wanted = lines, wanted
        if self._chosen:
            keys = (index for index, line in enumerate(lines) if line.key == self._chosen)
            self._cursor = next(keys, self._cursor)
        else:
            self._cursor = 0
        self._cursor = max(0, min(self._cursor, len(lines) - 1))
        self._fit()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The header, which stays, or a line."""
        if y == 0:
            first = self._wanted.group_by.value.upper()
            cells = self._layout_now.headers(first, self._wanted.sort_by, reverse=self._wanted.reverse)
            return self._strip([(cell, _PLAIN) for cell in cells], _HEADER)
        index = y - 1 + self.scroll_offset.y
        if index >= len(self._lines):
            return Strip.blank(self._width)
        line = self._lines[index]
        state = next(iter(line.states)) if len(line.states) == 1 else ""
        colour = Style.parse(STYLES[state]) if state in STYLES else _PLAIN
        coloured = [
            (cell, colour if field.state else _PLAIN)
            for cell, field in zip(self._layout_now.cells(line), self._layout_now.fields, strict=True)
        ]
        return self._strip(coloured, _FADED if self.faded else _CURSOR if index == self._cursor else _PLAIN)

    def on_resize(self, _event: events.Resize) -> None:
        """The terminal has another size."""
        self._fit()

    def on_click(self, event: events.Click) -> None:
        """Choose the line that was clicked on."""
        if event.y > 0:
            self._go_to(event.y - 1 + self.scroll_offset.y)

    def action_move(self, lines: int) -> None:
        """Move the cursor by so many lines."""
        self._go_to(self._cursor + lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screens."""
        self._go_to(self._cursor + pages * max(1, self.size.height - 2))

    def action_edge(self, end: int) -> None:
        """Move the cursor to the first line or to the last."""
        self._go_to(len(self._lines) - 1 if end else 0)

    def _go_to(self, index: int) -> None:
        self._cursor = max(0, min(index, len(self._lines) - 1))
        self._chosen = self.line.key if self.line and self._cursor else ""  # at the top, whoever comes there
        self._fit()
        self.refresh()
        self.post_message(self.Moved())

    def _fit(self) -> None:
        """Take in the size of the terminal and of the list, and have the cursor in sight."""
        self._layout_now = Layout.of(self._wanted.group_by, self._width)
        self.virtual_size = Size(self._width, len(self._lines) + 1)
        height = max(1, self.size.height - 1)
        top = min(max(self.scroll_offset.y, self._cursor - height + 1), self._cursor)
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def _strip(self, cells: Sequence[tuple[str, Style]], base: Style) -> Strip:
        segments = []
        for text, style in cells:
            segments += [Segment(text, base + style), Segment(" " * GAP, base)]
        return Strip(segments[:-1]).adjust_cell_length(self._width, base)
