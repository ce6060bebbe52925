"""`userproxy connections`: who talks to whom through us, and how much."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from userproxy.cli.commands import Command, Option
from userproxy.cli.daemon import Environment, admin_socket_option, daemon_at, pass_environment
from userproxy.cli.filters import SECTION, Parsed, Wanted, namespace_option, service_option
from userproxy.cli.listing import Listing, Report, listing_options, show, watch
from userproxy.cli.tables import Column
from userproxy.model.filter import ConnectionFilter, parse_backend, parse_client
from userproxy.model.human import human_age, human_bytes
from userproxy.model.rows import ConnectionRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from userproxy.model.address import Address
    from userproxy.model.service import ServicePortName

COLUMNS: tuple[Column[ConnectionRow], ...] = (
    Column("ID", lambda row: row.id),
    Column("PROTOCOL", lambda row: row.protocol, wide=True),
    Column("SERVICE", lambda row: row.service, breaks="/:"),
    Column("CLIENT", lambda row: row.client, breaks=":"),
    Column("FRONTEND", lambda row: row.frontend, keep=1),
    Column("LISTENER", lambda row: row.listener or "", wide=True),
    Column("SOURCE", lambda row: row.source, wide=True),
    Column("BACKEND", lambda row: row.backend, breaks=":"),
    Column("STATE", lambda row: row.state, keep=6),
    Column("PATH", lambda row: row.path, wide=True),
    Column("STARTED", lambda row: row.started_at, wide=True),
    Column("AGE", lambda row: _known(row, "age_seconds", human_age), keep=5, right=True),
    Column("IDLE", lambda row: human_age(row.idle_seconds), keep=2, right=True),
    Column("UP", lambda row: _known(row, "bytes_up", human_bytes), keep=3, right=True),
    Column("DOWN", lambda row: _known(row, "bytes_down", human_bytes), keep=4, right=True),
)


def _known(row: ConnectionRow, field: str, shown: Callable[[Any], str]) -> str:
    """A figure of a row; empty if it is not known."""
    return "" if field in row.unknown else shown(getattr(row, field))


CLIENT = Parsed("client", parse_client)
BACKEND = Parsed("backend", parse_backend)


def filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--service`, `--client` and `--backend`, passed as one `ConnectionFilter`, `wanted`."""

    @functools.wraps(command)
    def with_filter(
        *args: Any,  # noqa: ANN401 - the command's own
        service: ServicePortName | None,
        client: str | None,
        backend: Address | None,
        **options: Any,  # noqa: ANN401 - likewise
    ) -> None:
        wanted = ConnectionFilter(service=service, client=client, backend=backend)
        command(*args, wanted=wanted, **options)

    decorated: Callable[..., None] = with_filter
    for name, kind, metavar, told in (
        ("--backend", BACKEND, "IP[:PORT]", "Only those to this pod."),
        ("--client", CLIENT, "IP|CIDR", "Only those from these clients."),
    ):
        decorated = click.option(name, type=kind, cls=Option, section=SECTION, metavar=metavar, help=told)(
            decorated
        )
    return service_option(decorated)


def state_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--state`, passed as `state`."""
    return click.option(
        "--state", cls=Option, section=SECTION, default="", metavar="STATE", help="Only those in it."
    )(command)


def interval_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--interval`, passed as `interval`."""
    return click.option(
        "--interval",
        cls=Option,
        section="Output",
        type=click.FloatRange(min=0.1),
        default=1.0,
        show_default=True,
        metavar="SECONDS",
        help="Between two looks at the daemon while watching.",
    )(command)


@click.command(
    cls=Command,
    examples=(
        ("userproxy connections --service default/web", "who is connected to a Service"),
        ("userproxy connections -n shop --state waiting", "who waits for an endpoint"),
        ("userproxy connections --watch", "the busiest first, again and again: `userproxy top`"),
        ("userproxy connections --client 10.0.1.0/24 -o json | jq -r '.[].id'", "IDs, for a script"),
    ),
)
@namespace_option
@filter_options
@state_option
@listing_options(ConnectionRow)
@click.option(
    "--watch",
    "-w",
    "watching",
    is_flag=True,
    cls=Option,
    section="Output",
    help="Until Ctrl-C. On a terminal it is `userproxy top`; -o json is JSON lines then.",
)
@interval_option
@admin_socket_option
@pass_environment
def connections(  # noqa: PLR0913 - one for each option
    environment: Environment,
    /,
    *,
    admin_socket: str,
    listing: Listing,
    namespace: str,
    state: str,
    wanted: ConnectionFilter,
    watching: bool,
    interval: float,
) -> None:
    """List the live connections that are proxied."""
    more = Wanted(namespace, state=state)

    def choose(rows: Iterable[ConnectionRow]) -> Sequence[ConnectionRow]:
        return more.of(rows, lambda row: row.state)

    def ask() -> Sequence[ConnectionRow]:
        with daemon_at(admin_socket) as daemon:
            return choose(daemon.connections(wanted, [state] if state else ()))

    report = Report(COLUMNS, listing, "no connection matches" if wanted or more else "no connections")
    if watching and not listing.for_machines and environment.terminal_width() is not None:
        from userproxy.cli.top.command import as_watched, run  # noqa: PLC0415 - which imports this

        run(admin_socket, (wanted, choose), as_watched(listing), interval)
    elif watching:
        watch(report, ask, environment, interval)
    else:
        show(report, ask(), environment)
