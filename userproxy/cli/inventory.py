"""`userproxy services`, `backends` and `status`: what is served, by whom, and by which daemon."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.cli.commands import Command
from userproxy.cli.daemon import Environment, admin_socket_option, daemon_at, pass_environment
from userproxy.cli.filters import BACKEND_STATES, SERVICE_STATES, Wanted, service_state, wanted_options
from userproxy.cli.listing import Listing, Report, listing_options, output_option, show
from userproxy.cli.tables import Column, mapping_text, printable
from userproxy.model.human import human_age
from userproxy.model.rows import BackendRow, ServiceRow

if TYPE_CHECKING:
    from userproxy.model.rows import StatusRow

SERVICE_COLUMNS: tuple[Column[ServiceRow], ...] = (
    Column("SERVICE", lambda row: row.service, breaks="/:"),
    Column("PROTOCOL", lambda row: row.protocol, keep=1),
    Column("PATH", lambda row: row.path, wide=True),
    Column("POLICY", lambda row: row.policy, keep=4),
    Column("FRONTENDS", lambda row: ",".join(row.frontends), breaks=",", flexible=True),
    Column("LISTENER", lambda row: row.listener or "", keep=3),
    Column("BACKENDS", lambda row: f"{row.backends_up}/{row.backends}", right=True),
    Column("CONNECTIONS", lambda row: str(row.connections), keep=2, right=True),
    Column("PROBLEMS", lambda row: "; ".join(row.problems), breaks=" ", flexible=True),
)


def backend_columns(now: dt.datetime) -> tuple[Column[BackendRow], ...]:
    """The columns of `userproxy backends`; `FOR` is how long a backend has been in its state, at now."""
    return (
        Column("SERVICE", lambda row: row.service, breaks="/:"),
        Column("BACKEND", lambda row: row.backend, breaks=":"),
        Column("NODE", lambda row: row.node, keep=3),
        Column("ZONE", lambda row: row.zone, wide=True),
        Column("STATE", lambda row: row.state),
        Column("FOR", lambda row: _elapsed(row.since, now), keep=4, right=True),
        Column("SINCE", lambda row: row.since, wide=True),
        Column("LATENCY", lambda row: _milliseconds(row.latency_ms), keep=1, right=True),
        Column("CONNECTIONS", lambda row: str(row.connections), keep=2, right=True),
        Column("REASON", lambda row: row.reason, breaks=" ", flexible=True),
    )


@click.command(
    cls=Command,
    examples=(
        ("userproxy services", "everything that is served on this node"),
        ("userproxy services -n shop --state down", "which Services of a namespace have no pod to go to"),
        ("userproxy services --sort-by connections --reverse", "the busiest first"),
        ("userproxy services -o json | jq '.[] | select(.problems != [])'", "those with a problem"),
    ),
)
@wanted_options(
    SERVICE_STATES, "Only those of which all backends may be picked, some, none, or that have none."
)
@listing_options(ServiceRow)
@admin_socket_option
@pass_environment
def services(environment: Environment, /, *, admin_socket: str, listing: Listing, wanted: Wanted) -> None:
    """List the Service ports that are served, and where."""
    with daemon_at(admin_socket) as daemon:
        rows = wanted.of(daemon.services(), service_state)
    nothing = "no service matches" if wanted else "no services"
    show(Report(SERVICE_COLUMNS, listing, nothing), rows, environment)


@click.command(
    cls=Command,
    examples=(
        ("userproxy backends --service default/web", "the pods behind a Service"),
        ("userproxy backends --state down", "those that are down, with the reason"),
        ("userproxy backends --sort-by latency_ms --reverse --no-headers | head -5", "the slowest five"),
    ),
)
@wanted_options(BACKEND_STATES, "Only those in this state.")
@listing_options(BackendRow)
@admin_socket_option
@pass_environment
def backends(environment: Environment, /, *, admin_socket: str, listing: Listing, wanted: Wanted) -> None:
    """List the backends of each Service port, with their state and why."""
    with daemon_at(admin_socket) as daemon:
        rows = wanted.of(daemon.backends(), lambda row: row.state)
    nothing = "no backend matches" if wanted else "no backends"
    show(Report(backend_columns(environment.now()), listing, nothing), rows, environment)


@click.command(
    cls=Command,
    examples=(
        ("userproxy status", "is all well?"),
        ("userproxy status >/dev/null || echo trouble", "the same in a script"),
        ("userproxy status -o json | jq .source.stale_seconds", "how old the desired state may be"),
    ),
)
@output_option("table", "json", "yaml")
@admin_socket_option
def status(*, admin_socket: str, output: str) -> None:
    """Show the daemon: what it serves, from which source, and what is wrong with it.

    The exit code is 1 while the daemon cannot follow its source or cannot apply what that says, as when
    the API server is away, and if there is no daemon. Problems of single Services and files do not count.
    """
    with daemon_at(admin_socket) as daemon:
        row = daemon.status()
    texts = {"json": lambda: msgspec.json.encode(row).decode(), "yaml": lambda: mapping_text(row)}
    click.echo(texts.get(output, lambda: status_text(row))())
    if row.failing:
        raise click.ClickException(f"the daemon is out of step: {printable(row.problems[0])}")


def status_text(row: StatusRow) -> str:
    """The daemon's state, one fact a line, each problem on a line of its own."""
    source = row.source
    freshness = "synced" if source.synced else "not synced yet"
    if source.synced and source.stale_seconds >= 1:
        freshness = f"out of touch for {human_age(source.stale_seconds)}"
    if source.problem:
        freshness += f": {source.problem}"
    facts = {
        "version": row.version,
        "pid": str(row.pid),
        "node": row.node,
        "mode": row.mode,
        "uptime": human_age(row.uptime_seconds),
        "source": f"{source.kind}, {freshness}",
        "services": str(row.services),
        "listeners": str(row.listeners),
        "connections": str(row.connections),
        "ruleset": row.ruleset,
        "problems": str(len(row.problems)),
    }
    lines = [f"{name + ':':<13}{printable(value)}" for name, value in facts.items()]
    return "\n".join([*lines, *(f"  {printable(problem)}" for problem in row.problems)])


def _elapsed(since: str, now: dt.datetime) -> str:
    try:
        return human_age((now - dt.datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):  # not RFC 3339, or without a zone
        return ""


def _milliseconds(latency: float | None) -> str:
    return "" if latency is None else f"{latency:.1f}ms"
