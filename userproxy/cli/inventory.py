"""`userproxy services`, `backends` and `status`: what is served, by whom, and by which daemon."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.cli.daemon import (
    Environment,
    Report,
    admin_socket_option,
    daemon_at,
    output_option,
    pass_environment,
    show,
)
from userproxy.cli.tables import Column, printable
from userproxy.model.human import human_age

if TYPE_CHECKING:
    from userproxy.model.rows import BackendRow, ServiceRow, StatusRow

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


@click.command()
@admin_socket_option
@output_option
@pass_environment
def services(environment: Environment, /, *, admin_socket: str, output: str) -> None:
    """List the Service ports that are served, and where."""
    with daemon_at(admin_socket) as daemon:
        rows = list(daemon.services())
    show(Report(SERVICE_COLUMNS, output, "no services"), rows, environment)


@click.command()
@admin_socket_option
@output_option
@pass_environment
def backends(environment: Environment, /, *, admin_socket: str, output: str) -> None:
    """List the backends of each Service port, with their state and why."""
    with daemon_at(admin_socket) as daemon:
        rows = list(daemon.backends())
    show(Report(backend_columns(environment.now()), output, "no backends"), rows, environment)


@click.command()
@admin_socket_option
@output_option
def status(*, admin_socket: str, output: str) -> None:
    """Show the daemon: what it serves, from which source, and what is wrong with it.

    The exit code is 1 while the daemon cannot follow its source or cannot apply what that says, as when
    the API server is away. Problems of single Services and files do not count.
    """
    with daemon_at(admin_socket) as daemon:
        row = daemon.status()
    click.echo(msgspec.json.encode(row) if output == "json" else status_text(row))
    if row.failing:
        raise click.ClickException(f"the daemon is out of step: {printable(row.problems[0])}")


def status_text(row: StatusRow) -> str:
    """The daemon's state, one fact a line, each problem on a line of its own."""
    source = row.source
    freshness = "synced" if source.synced else "not synced yet"
    if source.synced and source.stale_seconds >= 1:
        freshness = f"out of touch for {human_age(source.stale_seconds)}"
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
