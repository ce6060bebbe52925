"""`userproxy bench`: every way to reach a Service that this machine can run, side by side."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.bench.paths.registry import DEFAULT_NAMES
from userproxy.bench.paths.registry import NAMES as PATHS
from userproxy.bench.report import figures, files
from userproxy.bench.session import Session
from userproxy.bench.workloads.base import Settings
from userproxy.bench.workloads.registry import NAMES as WORKLOADS
from userproxy.cli.commands import Command
from userproxy.lab.network import LabError
from userproxy.lab.processes import Interrupted, interruptible

if TYPE_CHECKING:
    from collections.abc import Generator

    from userproxy.bench.report.record import Record
    from userproxy.bench.session import Watcher

QUICK = Settings(
    rounds=1,
    seconds=1,
    warmup=0,
    memory_rounds=1,
    sizes=(1, 100),
    mixed_sizes=(100,),
    answers=100,
    changes=1,
    patience=20.0,
    budget=140.0,
)
"""Ends within three minutes: what would not fit is reported as not measured."""

_PLAIN_SECONDS = 5.0


class _Names(click.ParamType[tuple[str, ...]]):
    """A comma-separated list, in which each name must be one of those there are."""

    name = "names"

    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split and check it."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        for name in names:
            if name not in self._known:
                self.fail(f"{name!r} is none of {', '.join(self._known)}", param, ctx)
        if not names:
            self.fail(f"name at least one of {', '.join(self._known)}", param, ctx)
        return names


@click.command(cls=Command, examples=(("userproxy bench --quick", "a first look, within three minutes"),))
@click.option(
    "--paths", type=_Names(PATHS), default=DEFAULT_NAMES, help=f"Of {', '.join(PATHS)}. [default: all]"
)
@click.option(
    "--workloads",
    type=_Names(WORKLOADS),
    default=WORKLOADS,
    help=f"Of {', '.join(WORKLOADS)}: requests over so many connections, new connections, "
    "throughput of so many streams, DNS queries, UDP, memory, many Services, many of every kind. "
    "[default: all]",
)
@click.option("--rounds", type=click.IntRange(1), help=f"Of everything. [default: {Settings().rounds}]")
@click.option("--seconds", type=click.IntRange(1), help=f"A measurement. [default: {Settings().seconds}]")
@click.option("--base", type=click.Choice(PATHS), default="haproxy", show_default=True, help="Of the ratios.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("bench-report"),
    show_default=True,
    help="A directory for report.json, report.md and the plots.",
)
@click.option("--quick", is_flag=True, help="End within 3 minutes: one short round, fewer Services.")
@click.option("--name", default="bench", show_default=True, help="What the names of its labs begin with.")
def bench(  # noqa: PLR0913 - one for each option
    *,
    paths: tuple[str, ...],
    workloads: tuple[str, ...],
    rounds: int | None,
    seconds: int | None,
    base: str,
    output: Path,
    quick: bool,
    name: str,
) -> None:
    """Measure userproxy and its peers side by side, in network namespaces.

    Peers that are not installed are left out, and the report says so. KUBE_PROXY and KUBE_PROXY_USERSPACE
    may name a kube-proxy, and KUBEBUILDER_ASSETS the directory of kube-apiserver and etcd, which it needs.
    Needs root; nothing outside of its own namespaces is changed.
    """
    settings = QUICK if quick else Settings()
    given = {key: value for key, value in (("rounds", rounds), ("seconds", seconds)) if value is not None}
    settings = msgspec.structs.replace(settings, **given)
    try:
        files.check(output)
        with interruptible(), _progress() as watcher:
            record = Session(name, settings, watcher).run(paths, workloads)
        chosen = record.base(base)
        written = files.write(record, chosen, output)
    except (LabError, files.OutputError) as error:
        raise click.ClickException(str(error)) from None
    except Interrupted as interrupt:
        click.echo(f"userproxy: interrupted ({interrupt}); nothing is left of the benchmark", err=True)
        sys.exit(interrupt.exit_code)
    _show(record, chosen)
    click.echo(f"\nWritten to {output}: {', '.join(written)}")


@contextlib.contextmanager
def _progress() -> Generator[Watcher]:
    """A bar on stderr if a person watches, else a line every few seconds."""
    if not sys.stderr.isatty():
        yield _plain()
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, text: progress.update(task, completed=done, total=total, description=text)


def _plain() -> Watcher:
    last = [0.0]

    def tell(done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - last[0] >= _PLAIN_SECONDS or done == total:
            last[0] = now
            click.echo(f"[{done}/{total}] {text}", err=True)

    return tell


def _show(record: Record, base: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - likewise

    console = Console()
    # Where nobody watches, lines are not to be broken to a terminal's width.
    console = console if console.is_terminal else Console(width=200)
    shown = [figures.headline(record, base), *figures.tables(record, base)]
    for table in filter(None, shown):
        drawn = Table(
            title=table.title, title_justify="left", title_style="bold", header_style="dim", box=None
        )
        for number, header in enumerate(table.header):
            drawn.add_column(header, justify="right" if number else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
        console.print()
    for each in record.missing:
        click.echo(f"{each.path}, {each.what}: could not be measured: {each.reason}")
