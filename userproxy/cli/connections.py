"""`userproxy connections`: who talks to whom through us, and how much."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any

import click

from userproxy.cli.commands import Command, Group, Option
from userproxy.cli.daemon import Environment, admin_socket_option, daemon_at, pass_environment
from userproxy.cli.filters import SECTION, Parsed, Wanted, namespace_option, service_option
from userproxy.cli.listing import Listing, Report, listing_options, show, watch
from userproxy.cli.tables import Column
from userproxy.model.duration import parse_duration
from userproxy.model.endings import RECORDED, Reason
from userproxy.model.filter import ConnectionFilter, RecordFilter, parse_backend, parse_client
from userproxy.model.human import human_age, human_bytes
from userproxy.model.rows import ConnectionRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from userproxy.model.address import Address
    from userproxy.model.records import RecordRow
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
    Column("AGE", lambda row: known(row, "age_seconds", human_age), keep=5, right=True),
    Column("IDLE", lambda row: human_age(row.idle_seconds), keep=2, right=True),
    Column("UP", lambda row: known(row, "bytes_up", human_bytes), keep=3, right=True),
    Column("DOWN", lambda row: known(row, "bytes_down", human_bytes), keep=4, right=True),
)


def known(row: ConnectionRow | RecordRow, field: str, shown: Callable[[Any], str]) -> str:
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


class Since(click.ParamType[Any]):
    """How long ago, or when; in seconds since the epoch."""

    name = "since"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click declares it
        """Read `10m` or a time; an error is a usage error."""
        environment = ctx.find_object(Environment) if ctx else None
        now = (environment or Environment()).now()
        try:
            return now.timestamp() - parse_duration(value, "s|m|h|d")
        except ValueError:
            pass
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            told = f"{value!r} is neither how long ago (10m, 2h, 1d) nor a time (2026-11-27T12:03:00Z)"
            self.fail(told, param, ctx)
        return (moment if moment.tzinfo else moment.astimezone()).timestamp()


def record_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--ended`, `--since`, `--reason` and those of `filter_options`: one `RecordFilter`, `chosen`.

    It asks for connections that are live, or for those that are over.
    """

    @filter_options
    @functools.wraps(command)
    def with_chosen(
        *args: Any,  # noqa: ANN401 - the command's own
        wanted: ConnectionFilter,
        ended: bool,
        since: float | None,
        reasons: tuple[str, ...],
        **options: Any,  # noqa: ANN401 - likewise
    ) -> None:
        if not ended and (since is not None or reasons):
            raise click.UsageError("--since and --reason are about connections that are over: add --ended")
        chosen = RecordFilter(
            connections=wanted,
            since=since or 0.0,
            reasons=tuple(map(Reason, reasons)),
            live=not ended,
            ended=ended,
        )
        command(*args, chosen=chosen, **options)

    decorated: Callable[..., None] = with_chosen
    for decorate in (
        click.option(
            "--reason",
            "reasons",
            cls=Option,
            section=SECTION,
            type=click.Choice([reason.value for reason in RECORDED]),
            multiple=True,
            metavar="REASON",
            help="With --ended: those that ended for it, such as client-reset. May be given more than once.",
        ),
        click.option(
            "--since",
            cls=Option,
            section=SECTION,
            type=Since(),
            metavar="DURATION|TIME",
            help="With --ended: those that ended since; 10m, 2h, or 2026-11-27T12:03:00Z.",
        ),
        click.option(
            "--ended",
            cls=Option,
            section=SECTION,
            is_flag=True,
            help="Those that are over, as far as they are remembered, the latest last.",
        ),
    ):
        decorated = decorate(decorated)
    return decorated


class _Connections(Command, Group):
    """`connections`, which lists, and `connections show`, which is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click declares it
        """The names."""
        return ["show"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """The command."""
        from userproxy.cli import records  # noqa: PLC0415 - it imports this module

        return records.show if cmd_name == "show" else None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, and then the command."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.command(
    cls=_Connections,
    invoke_without_command=True,
    examples=(
        ("userproxy connections --ended --client 10.0.1.3 --since 10m", "why a client got a reset"),
        ("userproxy connections --service default/web", "who is connected to a Service"),
        ("userproxy connections -n shop --state waiting", "who waits for an endpoint"),
        ("userproxy connections --watch", "the busiest first, again and again: `userproxy top`"),
        ("userproxy connections --client 10.0.1.0/24 -o json | jq -r '.[].id'", "IDs, for a script"),
    ),
)
@namespace_option
@record_options
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
    chosen: RecordFilter,
    watching: bool,
    interval: float,
) -> None:
    """List the connections that are proxied: those that live, or with --ended those that are over."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    wanted, more = chosen.connections, Wanted(namespace, state=state)
    if chosen.ended:
        if watching:
            raise click.UsageError("--watch shows live connections: leave it or --ended out")
        from userproxy.cli import records  # noqa: PLC0415 - it imports this module

        with daemon_at(admin_socket) as daemon:
            found = more.of(daemon.records(chosen), lambda row: row.state)
        records.list_ended(found, listing, environment)
        return

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
