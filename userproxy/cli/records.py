"""What became of connections: `userproxy connections --ended` and `show`, `userproxy who`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.cli.commands import Command
from userproxy.cli.connections import BACKEND, known
from userproxy.cli.daemon import Environment, admin_socket_option, daemon_at, pass_environment
from userproxy.cli.listing import Listing, Report, listing_options, output_option
from userproxy.cli.listing import show as show_rows
from userproxy.cli.tables import Column
from userproxy.cli.timeline import meaning, story
from userproxy.model.filter import ConnectionFilter, RecordFilter, shown
from userproxy.model.human import human_age, human_bytes
from userproxy.model.records import RecordRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.address import Address


def _moment(text: str) -> str:
    """A time of a row, to the second; the date and the zone are the log's."""
    return f"{text[:19]}Z" if text else ""


def _tried(row: RecordRow) -> str:
    return " ".join(f"{one.backend}:{one.error or 'answered'}" for one in row.attempts)


COLUMNS: tuple[Column[RecordRow], ...] = (
    Column("ENDED", lambda row: _moment(row.ended_at), breaks="T"),
    Column("ID", lambda row: row.id),
    Column("PROTOCOL", lambda row: row.protocol, wide=True),
    Column("SERVICE", lambda row: row.service, breaks="/:"),
    Column("CLIENT", lambda row: row.client, breaks=":"),
    Column("FRONTEND", lambda row: row.frontend, keep=1),
    Column("LISTENER", lambda row: row.listener or "", wide=True),
    Column("SOURCE", lambda row: row.source, wide=True),
    Column("BACKEND", lambda row: row.backend, breaks=":"),
    Column("STARTED", lambda row: _moment(row.started_at), wide=True),
    Column("PATH", lambda row: row.path, wide=True),
    Column("LIVED", lambda row: known(row, "duration_seconds", human_age), keep=2, right=True),
    Column("DIALS", _tried, wide=True),
    Column("UP", lambda row: known(row, "bytes_up", human_bytes), keep=3, right=True),
    Column("DOWN", lambda row: known(row, "bytes_down", human_bytes), keep=4, right=True),
    Column("BY", lambda row: row.ended_by, keep=5),
    Column("REASON", lambda row: row.reason),
)

WHO_COLUMNS: tuple[Column[RecordRow], ...] = (
    Column("SOURCE", lambda row: row.source, breaks=":"),
    Column("CLIENT", lambda row: row.client, breaks=":"),
    Column("SERVICE", lambda row: row.service, breaks="/:"),
    Column("FRONTEND", lambda row: row.frontend, keep=1),
    Column("BACKEND", lambda row: row.backend, breaks=":"),
    Column("ID", lambda row: row.id, keep=5),
    Column("STARTED", lambda row: _moment(row.started_at), breaks="T", keep=2),
    Column("ENDED", lambda row: _moment(row.ended_at), breaks="T", keep=3),
    Column("REASON", lambda row: row.reason or f"live: {row.state}", keep=4),
)


def list_ended(rows: Iterable[RecordRow], listing: Listing, environment: Environment) -> None:
    """Print these, the latest last, and for a person what the reasons among them mean."""
    if listing.sort_by not in ("", *RecordRow.__struct_fields__):
        known = ", ".join(RecordRow.__struct_fields__)
        raise click.UsageError(f"--sort-by: connections that are over have no {listing.sort_by}, but {known}")
    found = _in_order(rows)
    show_rows(Report(COLUMNS, listing, "no connection that has ended matches"), found, environment)
    if not listing.for_machines and environment.terminal_width() is not None:
        for reason in dict.fromkeys(row.reason for row in found):
            click.echo(f"{reason}: {meaning(reason)}", err=True)


@click.command(
    cls=Command,
    examples=(("userproxy connections show 18253-4", "what became of a connection, and why"),),
)
@click.argument("connection_id", metavar="ID")
@output_option("table", "json")
@admin_socket_option
def show(*, connection_id: str, admin_socket: str, output: str) -> None:
    """Tell the story of a connection, live or over: dials, first bytes, who ended it and why.

    The ID is that of `userproxy connections`, of `userproxy connections --ended`, or of the access log.
    """
    with daemon_at(admin_socket) as daemon:
        rows = _in_order(daemon.records(RecordFilter(id=connection_id)))
    if not rows:
        raise click.ClickException(
            f"no connection {connection_id} is known: see `userproxy connections --ended`; only the last are "
            "remembered (--recorded-connections), and none of those on the path redirect-to-pod"
        )
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(rows[-1])).decode())
    else:
        click.echo(story(rows[-1]))


@click.command(
    cls=Command,
    examples=(("userproxy who 10.100.0.2:42850", "the client that a pod's log calls so"),),
)
@click.argument("address", type=BACKEND, metavar="IP[:PORT]")
@listing_options(RecordRow)
@admin_socket_option
@pass_environment
def who(environment: Environment, /, *, address: Address, admin_socket: str, listing: Listing) -> None:
    """Tell which client is, or was, behind an address that a pod's log has as its client's.

    That is this node's own address and a port, where connections are relayed. A port is used again after a
    while: the latest connection comes last. Steered, a pod sees the client itself, or this node for a pod
    that asks itself. Of the path redirect-to-pod, what lives is known.
    """
    wanted = ConnectionFilter(source=address)
    with daemon_at(admin_socket) as daemon:
        rows = _in_order(daemon.records(RecordFilter(connections=wanted)))
    if not rows:
        raise click.ClickException(
            f"nobody is known to have come as {shown(address)}: is it another node's address, or longer ago "
            "than --recorded-connections reaches?"
        )
    show_rows(Report(WHO_COLUMNS, listing, ""), rows, environment)


def _in_order(rows: Iterable[RecordRow]) -> list[RecordRow]:
    """The latest last, and then those that live."""
    return sorted(rows, key=lambda row: (not row.ended_at, row.ended_at, row.started_at))
