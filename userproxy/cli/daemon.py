"""What the commands that ask a daemon have in common: where its socket is, how they print, how they fail."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from userproxy.cli import tables
from userproxy.control.node_lock import NodeLock
from userproxy.ops.client import DEFAULT_PATH, AdminClient, AdminError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MARGIN = 4
"""Lines of a terminal that are no rows: the header, the notes and the cursor's."""


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _remove_traces() -> tuple[str, ...]:
    from userproxy.netfilter.cleanup import cleanup  # noqa: PLC0415 - only one command needs netlink

    return cleanup()


def _end_orphans() -> tuple[int, ...]:
    from userproxy.worker.orphans import end_orphans  # noqa: PLC0415 - only one command needs workers

    return end_orphans()


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The world as the commands see it; `click.Context.obj` carries it, so a test can bring its own.

    Attributes:
        terminal_width: the columns of the terminal that stdout is, or None if it is none.
        now: the time, in UTC.
        sleep: waits for so many seconds.
        node_lock: makes the lock of this node.
        end_orphans: ends workers that a daemon has left behind; returns their pids.
        remove_traces: takes everything of ours out of the kernel; returns a line for each thing it found.
    """

    terminal_width: Callable[[], int | None] = _terminal_width
    now: Callable[[], dt.datetime] = _now
    sleep: Callable[[float], None] = time.sleep
    node_lock: Callable[[], NodeLock] = NodeLock
    end_orphans: Callable[[], tuple[int, ...]] = _end_orphans
    remove_traces: Callable[[], tuple[str, ...]] = _remove_traces


pass_environment = click.make_pass_decorator(Environment, ensure=True)


def admin_socket_option(command: _Command) -> _Command:
    """`--admin-socket`, passed as `admin_socket`."""
    return click.option(
        "--admin-socket",
        envvar="USERPROXY_ADMIN_SOCKET",
        default=DEFAULT_PATH,
        show_default=True,
        show_envvar=True,
        metavar="PATH",
        help="The socket on which the daemon answers.",
    )(command)


def output_option(command: _Command) -> _Command:
    """`-o`, passed as `output`: `table`, `wide` or `json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "wide", "json"]),
        default="table",
        show_default=True,
        help="table: what fits; wide: every field; json: every field, raw, one object a row.",
    )(command)


@contextlib.contextmanager
def daemon_at(path: str) -> Iterator[AdminClient]:
    """A daemon to ask; whatever goes wrong ends the command with one line and exit code 1."""
    try:
        with AdminClient(path) as client:
            yield client
    except AdminError as error:
        raise click.ClickException(str(error)) from None


class Report(msgspec.Struct, frozen=True):
    """How rows are told.

    Attributes:
        columns: of the table.
        output: `table`, `wide` or `json`.
        nothing: said on stderr if there are no rows.
    """

    columns: Sequence[tables.Column[Any]]
    output: str
    nothing: str

    @property
    def wide(self) -> bool:
        """Whether every column is wanted."""
        return self.output == "wide"


def show(report: Report, rows: Sequence[msgspec.Struct], environment: Environment) -> None:
    """Print the rows."""
    if not rows:
        click.echo(report.nothing, err=True)
    width = environment.terminal_width()
    if report.output == "json":
        click.echo(tables.json_text(rows))
        return
    grid = tables.grid(report.columns, rows, wide=report.wide)
    if width is None:
        click.echo(tables.plain_text(grid))
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import

    needed = sum(grid.widths()) + tables.GAP * len(grid.columns) if report.wide else width
    console = Console(file=sys.stdout, width=max(width, needed), highlight=False)
    console.print(tables.terminal_table(grid, width, whole=report.wide))


def watch(
    report: Report,
    ask: Callable[[], Sequence[msgspec.Struct]],
    environment: Environment,
    interval: float,
) -> NoReturn:
    """Show what ask returns, every interval seconds, until Ctrl-C or until ask fails.

    A terminal shows one table in place. Elsewhere one snapshot follows the other, tables with a blank line
    between them.
    """
    if environment.terminal_width() is not None and report.output != "json":
        _watch_terminal(report, ask, environment, interval)
    first = True
    while True:
        rows = ask()
        if not first and report.output != "json":
            click.echo()
        first = False
        show(report, rows, environment)
        sys.stdout.flush()
        environment.sleep(interval)


def _watch_terminal(
    report: Report,
    ask: Callable[[], Sequence[msgspec.Struct]],
    environment: Environment,
    interval: float,
) -> NoReturn:
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import
    from rich.live import Live  # noqa: PLC0415 - likewise

    console = Console(file=sys.stdout, highlight=False, force_terminal=True)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            grid = tables.grid(report.columns, ask(), wide=report.wide)
            width, height = shutil.get_terminal_size()
            limit = max(1, height - _MARGIN)
            live.update(tables.terminal_table(grid, width, whole=report.wide, limit=limit), refresh=True)
            environment.sleep(interval)
