"""The command `userproxy top`, and what `userproxy connections --watch` does on a terminal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import click

from userproxy.cli.commands import Command, Option
from userproxy.cli.connections import filter_options, interval_option, state_option
from userproxy.cli.daemon import Environment, admin_socket_option, pass_environment
from userproxy.cli.filters import Wanted as Rows
from userproxy.cli.filters import namespace_option
from userproxy.cli.top.arrange import GroupBy, SortBy, Wanted
from userproxy.cli.top.remote import Remote
from userproxy.ops.client import AdminError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from userproxy.cli.listing import Listing
    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.rows import ConnectionRow

Chosen: TypeAlias = "tuple[ConnectionFilter, Callable[[Iterable[ConnectionRow]], Sequence[ConnectionRow]]]"
"""Which connections are asked for, and which of those are watched."""

_FIELDS = {
    "age_seconds": SortBy.AGE,
    "idle_seconds": SortBy.IDLE,
    "bytes_up": SortBy.BYTES,
    "bytes_down": SortBy.BYTES,
}


@click.command(
    cls=Command,
    examples=(
        ("userproxy top", "all connections, the busiest first"),
        ("userproxy top --service shop/cart --sort-by age", "the oldest of a Service"),
        ("userproxy top --group-by client", "a line for each client"),
    ),
)
@namespace_option
@filter_options
@state_option
@click.option(
    "--sort-by",
    cls=Option,
    section="Output",
    type=click.Choice([by.value for by in SortBy]),
    default=SortBy.RATE.value,
    show_default=True,
    help="What comes first.",
)
@click.option(
    "--group-by",
    cls=Option,
    section="Output",
    type=click.Choice([by.value for by in GroupBy]),
    default=GroupBy.NOTHING.value,
    show_default=True,
    help="A line for each of these.",
)
@interval_option
@admin_socket_option
@pass_environment
def top(  # noqa: PLR0913 - one for each option
    environment: Environment,
    /,
    *,
    admin_socket: str,
    namespace: str,
    state: str,
    wanted: ConnectionFilter,
    interval: float,
    sort_by: str,
    group_by: str,
) -> None:
    """Watch the live connections: who is busy, who is idle, and what all of them do a second.

    Sorted, grouped and filtered with single keys, which stand at the bottom; `?` explains them. It goes on
    when the daemon starts anew.
    """
    if environment.terminal_width() is None:
        raise click.ClickException("top needs a terminal: `userproxy connections --watch` needs none")
    more = Rows(namespace, state=state)
    chosen = wanted, lambda rows: more.of(rows, lambda row: row.state)
    run(admin_socket, chosen, Wanted(sort_by=SortBy(sort_by), group_by=GroupBy(group_by)), interval)


def as_watched(listing: Listing) -> Wanted:
    """How the lines are wanted at first, of who asks for a list that is watched.

    Raises:
        click.UsageError: they cannot be sorted so.
    """
    if not listing.sort_by:
        return Wanted()
    if listing.sort_by not in _FIELDS:
        raise click.UsageError(f"on a terminal, --watch sorts by {', '.join(_FIELDS)}")
    by = _FIELDS[listing.sort_by]
    return Wanted(sort_by=by, reverse=listing.reverse == (by is SortBy.IDLE))


def run(admin_socket: str, chosen: Chosen, wanted: Wanted, interval: float) -> None:
    """Watch until the user leaves.

    Raises:
        click.ClickException: the daemon cannot be asked at all.
    """
    daemon = Remote(admin_socket, *chosen)
    try:
        daemon.look()
    except AdminError as error:
        raise click.ClickException(str(error)) from None
    from userproxy.cli.top.app import Top  # noqa: PLC0415 - textual takes 0.2 s to import

    async def pause() -> None:
        await asyncio.sleep(interval)

    Top(daemon, wanted, pause).run()
