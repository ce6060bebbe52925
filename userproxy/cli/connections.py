"""`userproxy connections`: who talks to whom through us, and how much."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from userproxy.cli.daemon import (
    Environment,
    Report,
    admin_socket_option,
    daemon_at,
    output_option,
    pass_environment,
    show,
    watch,
)
from userproxy.cli.tables import Column
from userproxy.model.filter import ConnectionFilter, parse_backend, parse_client, parse_service
from userproxy.model.human import human_age, human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.model.address import Address
    from userproxy.model.rows import ConnectionRow
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


class Parsed(click.ParamType[Any]):
    """An option whose value a function of `userproxy.model.filter` reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click declares it
        """Read the option's text; an error of the parser is a usage error."""
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SERVICE = Parsed("service", parse_service)
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
    for decorate in (
        click.option("--backend", type=BACKEND, metavar="IP[:PORT]", help="Only those to this pod."),
        click.option("--client", type=CLIENT, metavar="IP|CIDR", help="Only those from these clients."),
        click.option("--service", type=SERVICE, metavar="NS/NAME[:PORT]", help="Only those of this Service."),
    ):
        decorated = decorate(decorated)
    return decorated


@click.command()
@admin_socket_option
@output_option
@filter_options
@click.option("--watch", "-w", "watching", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two refreshes of --watch.",
)
@pass_environment
def connections(
    environment: Environment,
    /,
    *,
    admin_socket: str,
    output: str,
    wanted: ConnectionFilter,
    watching: bool,
    interval: float,
) -> None:
    """List the live connections that are proxied."""

    def ask() -> Sequence[ConnectionRow]:
        with daemon_at(admin_socket) as daemon:
            return list(daemon.connections(wanted))

    report = Report(COLUMNS, output, "no connection matches" if wanted else "no connections")
    if watching:
        watch(report, ask, environment, interval)
    else:
        show(report, ask(), environment)
