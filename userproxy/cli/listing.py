"""Lists of rows: which of them, in which order, as what, once or again and again."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import msgspec

from userproxy.cli import tables
from userproxy.cli.commands import Option

if TYPE_CHECKING:
    from userproxy.cli.daemon import Environment

Row = TypeVar("Row", bound=msgspec.Struct)

SECTION = "Output"

_NUMBERS = re.compile(r"([0-9]+)")
_MACHINES = ("json", "yaml")


class Listing(msgspec.Struct, frozen=True):
    """How rows are to be listed.

    Attributes:
        output: `table`, `wide`, `json` or `yaml`.
        sort_by: a field of the rows; empty leaves them as they come.
        reverse: the other way round.
        headers: whether a table begins with the names of its columns.
    """

    output: str = "table"
    sort_by: str = ""
    reverse: bool = False
    headers: bool = True

    @property
    def wide(self) -> bool:
        """Whether every column is wanted."""
        return self.output == "wide"

    @property
    def for_machines(self) -> bool:
        """Whether it is not a table."""
        return self.output in _MACHINES

    def sorted(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows in the order that is wanted: numbers by size, in texts too; what is unknown first."""
        if self.sort_by:
            return sorted(rows, key=lambda row: _rank(getattr(row, self.sort_by)), reverse=self.reverse)
        return rows[::-1] if self.reverse else rows


class Report(msgspec.Struct, frozen=True):
    """How rows are told.

    Attributes:
        columns: of the table.
        listing: what of it, and how.
        nothing: said on stderr if there are no rows.
    """

    columns: Sequence[tables.Column[Any]]
    listing: Listing
    nothing: str


class _Field(click.ParamType[str]):
    """A field of the rows, by its name in JSON; a dash does for an underscore."""

    name = "field"

    def __init__(self, row: type[msgspec.Struct]) -> None:
        self.fields = row.__struct_fields__

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Find it."""
        field = value.lower().replace("-", "_")
        if field not in self.fields:
            self.fail(f"{value!r} is none of {', '.join(self.fields)}", param, ctx)
        return field

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """The fields that begin so."""
        return click.Choice(self.fields).shell_complete(ctx, param, incomplete)


def output_option(*values: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`-o`, passed as `output`: one of the values, by default the first."""
    told = {
        "table": "what fits",
        "wide": "every field",
        "json": "every field, raw, one object a row",
        "yaml": "the same as YAML",
        "nft": "the rules, for nft -f",
    }
    return click.option(
        "-o",
        "--output",
        cls=Option,
        section=SECTION,
        type=click.Choice(values),
        default=values[0],
        show_default=True,
        help="; ".join(f"{value}: {told[value]}" for value in values) + ".",
    )


def listing_options(
    row: type[msgspec.Struct], *more: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`-o`, `--sort-by`, `--reverse` and `--no-headers`, passed as `listing`.

    Args:
        row: the rows' type.
        more: other values of `-o`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_listing(
            *args: Any,  # noqa: ANN401 - the command's own
            output: str,
            sort_by: str,
            reverse: bool,
            no_headers: bool,
            **options: Any,  # noqa: ANN401 - likewise
        ) -> Any:  # noqa: ANN401 - likewise
            listing = Listing(output, sort_by or "", reverse, not no_headers)
            return command(*args, listing=listing, **options)

        decorated: Callable[..., Any] = with_listing
        for option in (
            click.option(
                "--no-headers",
                is_flag=True,
                cls=Option,
                section=SECTION,
                help="Print no line of column names.",
            ),
            click.option("--reverse", is_flag=True, cls=Option, section=SECTION, help="The other way round."),
            click.option(
                "--sort-by",
                type=_Field(row),
                cls=Option,
                section=SECTION,
                metavar="FIELD",
                help="In the order of a field, as -o json names it.",
            ),
            output_option("table", "wide", *_MACHINES, *more),
        ):
            decorated = option(decorated)
        return decorated

    return decorate


def show(report: Report, rows: Sequence[msgspec.Struct], environment: Environment) -> None:
    """Print the rows."""
    listing = report.listing
    if not rows:
        click.echo(report.nothing, err=True)
    rows = listing.sorted(rows)
    if listing.for_machines:
        click.echo(tables.json_text(rows) if listing.output == "json" else tables.yaml_text(rows))
        return
    width = environment.terminal_width()
    grid = tables.grid(report.columns, rows, wide=listing.wide)
    if width is None:
        if text := tables.plain_text(grid, headers=listing.headers):
            click.echo(text)
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import

    needed = sum(grid.widths()) + tables.GAP * len(grid.columns) if listing.wide else width
    console = Console(file=sys.stdout, width=max(width, needed), highlight=False)
    console.print(tables.terminal_table(grid, width, whole=listing.wide, headers=listing.headers))


def watch(
    report: Report,
    ask: Callable[[], Sequence[msgspec.Struct]],
    environment: Environment,
    interval: float,
) -> NoReturn:
    """Print what ask returns, every interval seconds, until Ctrl-C or until ask fails.

    One snapshot follows the other: tables with a blank line between them; as JSON they are JSON lines, each
    row with the time at which it was seen.
    """
    listing = report.listing
    first = True
    while True:
        rows = ask()
        if listing.output == "json":
            seen_at = environment.now().isoformat(timespec="milliseconds")
            for row in listing.sorted(rows):
                click.echo(msgspec.json.encode({"seen_at": seen_at} | msgspec.structs.asdict(row)))
        else:
            if not first and not listing.for_machines:
                click.echo()
            show(report, rows, environment)
        first = False
        sys.stdout.flush()
        environment.sleep(interval)


def _rank(value: Any) -> tuple[bool, Any]:  # noqa: ANN401 - of any field
    if value is None:
        return False, ()
    if isinstance(value, str):
        parts = _NUMBERS.split(value)
        return True, [(int(part) if part.isdecimal() else -1, part) for part in parts]
    if isinstance(value, int | float):
        return True, value
    return True, str(value)
