"""`userproxy top` on the screen: looks at the daemon again and again, and does what it is told with a key."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec
from rich.text import Text
from textual import work
from textual.app import App
from textual.binding import Binding
from textual.widgets import Footer, Input, Static

from userproxy.cli.tables import STYLES, printable
from userproxy.cli.top.arrange import GroupBy, Line, SortBy, Wanted, arranged
from userproxy.cli.top.dialogs import Help, Question
from userproxy.cli.top.reading import Meter, Totals
from userproxy.cli.top.table import ConnectionTable
from userproxy.model.address import Address
from userproxy.model.human import human_age, human_bytes
from userproxy.ops.client import AdminError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from userproxy.cli.top.reading import Flow
    from userproxy.cli.top.remote import Look
    from userproxy.model.rows import StatusRow
    from userproxy.ops.admin.messages import Drained, Killed


class Daemon(Protocol):
    """What is watched, as `userproxy.cli.top.remote` has it; every method may raise AdminError."""

    def look(self) -> Look:
        """What it shows now."""

    def kill(self, ids: Sequence[str], /) -> Killed:
        """Reset these connections."""

    def drain(self, backend: Address, /, *, undo: bool) -> Drained:
        """Give a pod no new connections, or let it be picked again."""


class Top(App[None]):
    """The program.

    Args:
        daemon: what is watched. It is asked in a thread, since it may be slow.
        wanted: how the lines are wanted at first.
        pause: waits until the next look is due.
    """

    TITLE = "userproxy top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #totals, #states, #notice, #detail { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #detail { color: $text-muted; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    ConnectionTable { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; overflow-y: scroll; }
    ModalScreen { align: center middle; }
    ModalScreen Vertical {
        width: auto; height: auto; max-width: 96%; border: round $primary; padding: 0 1; background: $surface;
    }
    ModalScreen Static { width: auto; max-width: 100%; }
    .quiet { color: $text-muted; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "sort('rate')", "rate"),
        Binding("b", "sort('bytes')", "bytes"),
        Binding("a", "sort('age')", "age"),
        Binding("i", "sort('idle')", "idle"),
        Binding("g", "group", "group"),
        Binding("slash", "filter", "filter", key_display="/", priority=True),  # what is typed on is its
        Binding("k", "kill", "kill"),
        Binding("d", "drain(False)", "drain"),
        Binding("u", "drain(True)", "undrain", show=False),
        Binding("p", "pause", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("enter", "open", show=False),
        Binding("escape", "back", show=False),
    ]

    def __init__(self, daemon: Daemon, wanted: Wanted, pause: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._daemon = daemon
        self._wanted = wanted
        self._pause = pause
        self._meter = Meter()
        self._flows: list[Flow] = []
        self._totals = Totals()
        self._status: StatusRow | None = None
        self._paused = False
        self._lost = ""
        self._said = ""

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="totals", markup=False)
        yield Static(id="states", markup=False)
        yield Static(id="notice", markup=False)
        yield ConnectionTable()
        yield Static(id="detail", markup=False)
        yield Input(
            placeholder="words that a connection has, of any of its columns", id="filter", compact=True
        )
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to look."""
        self._table.focus()
        self._follow()

    @work(exclusive=True, group="follow")
    async def _follow(self) -> None:
        while True:
            if not self._paused:
                await self._look()
            await self._pause()

    async def _look(self) -> None:
        try:
            seen = await asyncio.to_thread(self._daemon.look)
        except AdminError as error:
            self._lost, self._meter = str(error), Meter()
        else:
            self._lost, self._status = "", seen.status
            self._flows, self._totals = self._meter.read(seen.rows, time.monotonic())
        self._show()

    @property
    def _table(self) -> ConnectionTable:
        return self.query_one(ConnectionTable)

    def _show(self) -> None:
        """Draw what is known."""
        lines = arranged(self._flows, self._wanted)
        self._table.faded = bool(self._lost)
        self._table.show(lines, self._wanted)
        self.query_one("#totals", Static).update(self._totals_text(), layout=False)
        self.query_one("#states", Static).update(self._states_text(), layout=False)
        shown = sum(len(line.flows) for line in lines)
        self.query_one("#notice", Static).update(self._notice_text(shown), layout=False)
        self._show_detail()

    def on_connection_table_moved(self, _event: ConnectionTable.Moved) -> None:
        """Tell of the line that was chosen."""
        self._show_detail()

    def _show_detail(self) -> None:
        line = self._table.line
        text = Text(_detail(line, self._wanted) if line else "")
        self.query_one("#detail", Static).update(text, layout=False)

    def _totals_text(self) -> Text:
        totals, status = self._totals, self._status
        if status is None:
            return Text("userproxy top")
        parts = [
            f"{status.node}, up {human_age(status.uptime_seconds)}",
            f"{totals.connections:,} connections",
            f"+{totals.opened:.0f}/s -{totals.ended:.0f}/s",
            f"↑ {human_bytes(int(totals.up))}/s",
            f"↓ {human_bytes(int(totals.down))}/s",
        ]
        return Text("  ".join(parts), style="bold")

    def _states_text(self) -> Text:
        text = Text()
        counts = self._totals.states
        for state in sorted(counts, key=lambda one: (-counts[one], one)):
            text.append(f"{counts[state]:,} {printable(state)}", STYLES.get(state, ""))
            text.append("  ")
        return text

    def _notice_text(self, shown: int) -> Text:
        if self._lost:
            waiting = f"waiting for the daemon: {self._lost}"
            return Text(waiting, style="bold red")
        wanted = self._wanted
        parts = [f"by {wanted.sort_by.value}{', reversed' if wanted.reverse else ''}"]
        if wanted.group_by is not GroupBy.NOTHING:
            parts.append(f"a line for each {wanted.group_by.value}")
        if wanted.filter:
            parts.append(f"{shown:,} with {wanted.filter!r}")
        if self._paused:
            parts.append("paused")
        text = Text()
        if self._said:
            text.append(f"{self._said}  ", "bold yellow")
        text.append("  ".join(parts), "dim")
        if self._status is not None and self._status.problems:
            text.append(f"  {_counted(len(self._status.problems), 'problem')}: userproxy status", "bold red")
        return text

    def _change(self, **changes: object) -> None:
        self._wanted = msgspec.structs.replace(self._wanted, **changes)
        self._said = ""
        self._show()

    def action_sort(self, by: str) -> None:
        """Sort by a figure; once more: the other way round."""
        again = self._wanted.sort_by == by
        self._change(sort_by=SortBy(by), reverse=again and not self._wanted.reverse)

    def action_group(self) -> None:
        """Group by the next in turn."""
        turn = list(GroupBy)
        self._change(group_by=turn[(turn.index(self._wanted.group_by) + 1) % len(turn)])

    def action_open(self) -> None:
        """Show what is in a group."""
        line = self._table.line
        if line is not None and self._wanted.group_by is not GroupBy.NOTHING:
            self._change(group_by=GroupBy.NOTHING, filter=line.key)

    def action_filter(self) -> None:
        """Have a filter typed."""
        box = self.query_one("#filter", Input)
        box.value, box.display = self._wanted.filter, True
        self.screen.set_focus(box)  # at once, not when there is time

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._change(filter=event.value)

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """Keep the filter."""
        self._close_filter()

    async def action_back(self) -> None:
        """Remove the filter."""
        self._close_filter()
        self._change(filter="")

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self._table.focus()

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._paused = not self._paused
        self._show()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    @work(group="kill")
    async def action_kill(self) -> None:
        """Reset what the line stands for, if it is meant."""
        line = self._table.line
        if line is None:
            return
        ids = [flow.row.id for flow in line.flows]
        if await self.push_screen_wait(Question(f"Reset {_named(line, self._wanted)}?")):
            await self._do(lambda: _killed(self._daemon.kill(ids)))

    @work(group="drain")
    async def action_drain(self, undo: bool) -> None:
        """Drain the backend of the line, or undo that, if it is meant."""
        line = self._table.line
        backend = "" if line is None else line.flows[0].row.backend
        if self._wanted.group_by in (GroupBy.SERVICE, GroupBy.CLIENT) or not backend:
            self._said = "choose a connection or, grouped by backend, a backend"
            self._show()
            return
        what = f"Let {backend} get new connections again?" if undo else f"Give {backend} no new connections?"
        if await self.push_screen_wait(Question(what)):
            address = Address.parse(backend)
            await self._do(lambda: _drained(backend, self._daemon.drain(address, undo=undo), undo=undo))

    async def _do(self, act: Callable[[], str]) -> None:
        try:
            self._said = await asyncio.to_thread(act)
        except AdminError as error:
            self._said = str(error)
        self._show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - as textual declares it
        """While something lies over the table, or a filter is typed, its keys are not for it."""
        if len(self.screen_stack) > 1:
            return action == "leave"
        return action != "filter" or not self.query_one("#filter", Input).display

    def action_leave(self) -> None:
        """Leave, whatever lies over the table."""
        self.exit()


def _named(line: Line, wanted: Wanted) -> str:
    """What a line stands for, for a question."""
    row = line.flows[0].row
    if wanted.group_by is GroupBy.NOTHING:
        return f"the connection {row.id} of {row.client} to {row.backend or 'no backend yet'} ({row.service})"
    shown = f" with {wanted.filter!r}" if wanted.filter else ""
    of = "Service" if wanted.group_by is GroupBy.SERVICE else wanted.group_by.value
    return f"{_counted(len(line.flows), 'connection')} of the {of} {line.key}{shown}"


def _detail(line: Line, wanted: Wanted) -> str:
    """The line in full, nothing cut."""
    row = line.flows[0].row
    if wanted.group_by is not GroupBy.NOTHING:
        return f"{line.key}  {_counted(len(line.flows), 'connection')}  Enter: show them"
    between = f"{row.client} > {row.backend or 'no backend yet'}"
    return printable(f"{row.service}  {between}  at {row.frontend}  {row.id}  {row.state}")


def _killed(answer: Killed) -> str:
    beyond = f", {answer.out_of_reach:,} did not end in time" if answer.out_of_reach else ""
    return f"killed {_counted(answer.killed, 'connection')}{beyond}"


def _drained(backend: str, answer: Drained, *, undo: bool) -> str:
    what = "may be picked again" if undo else "gets no new connections"
    return f"{backend} {what}: {_counted(answer.backends, 'backend')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
