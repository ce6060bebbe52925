"""`userproxy kill` and `userproxy drain`: what an operator does, and the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.cli import offers
from userproxy.cli.commands import Command
from userproxy.cli.connections import BACKEND, filter_options
from userproxy.cli.daemon import admin_socket_option, daemon_at
from userproxy.cli.filters import Parsed
from userproxy.model.duration import parse_duration
from userproxy.model.levels import LEVELS
from userproxy.ops.admin.messages import LONGEST_DRAIN_SECONDS

if TYPE_CHECKING:
    from userproxy.model.address import Address
    from userproxy.model.filter import ConnectionFilter
    from userproxy.ops.admin.messages import Killed


def _drain_time(text: str) -> float:
    seconds = parse_duration(text, "s|m|h|d")
    if seconds > LONGEST_DRAIN_SECONDS:
        raise ValueError(f"at most {LONGEST_DRAIN_SECONDS / 86400:g}d")
    return seconds


_NAMED = 10
"""So many connections are named in one line."""


@click.command(
    cls=Command,
    examples=(
        ("userproxy kill 18253-4", "end one connection"),
        ("userproxy kill --service default/web --client 10.0.1.3", "end those of a client to a Service"),
    ),
)
@click.argument("ids", nargs=-1, metavar="ID...", shell_complete=offers.from_daemon(offers.connections))
@filter_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@admin_socket_option
def kill(*, ids: tuple[str, ...], admin_socket: str, wanted: ConnectionFilter, output: str) -> None:
    """Reset connections: those with these IDs, or all that match the options.

    The IDs are those of `userproxy connections`. Both sides of a connection get a reset, at once; of one that
    the kernel carries, within two seconds. The exit code is 1 if a connection that is meant is not ended.
    """
    if not ids and not wanted:
        raise click.UsageError("name connections by ID, or give --service, --client or --backend")
    if ids and wanted:
        raise click.UsageError("give either IDs or options, not both")
    with daemon_at(admin_socket) as daemon:
        answer = daemon.kill(tuple(dict.fromkeys(ids)) or None, wanted)
    if output == "json":
        click.echo(msgspec.json.encode(answer))
    else:
        click.echo(f"killed {_counted(answer.killed, 'connection')}{_meant(wanted)}{_carried(answer)}")
    failures = [_left(answer)] if answer.out_of_reach else []
    missing = len(set(ids)) - answer.killed - answer.out_of_reach
    if missing > 0:
        failures.append(
            f"{missing} of the IDs {'is' if missing == 1 else 'are'} no connection (any more): "
            "see `userproxy connections`"
        )
    if failures:
        raise click.ClickException("; ".join(failures))


@click.command(
    cls=Command,
    examples=(
        ("userproxy drain 10.0.1.2:8080", "before a pod is looked into"),
        ("userproxy drain --end-after 30s 10.0.1.2:8080", "before its machine is switched off"),
        ("userproxy drain --undo 10.0.1.2:8080", "when it may serve again"),
    ),
)
@click.argument(
    "backend",
    type=BACKEND,
    metavar="IP[:PORT]",
    shell_complete=offers.from_daemon(offers.backends),
)
@click.option("--undo", is_flag=True, help="Bring it back.")
@click.option(
    "--end-after",
    metavar="DURATION",
    type=Parsed("duration", _drain_time),
    help="Reset connections that are still there after so long (30s, 5m).",
)
@admin_socket_option
def drain(*, backend: Address, undo: bool, end_after: float | None, admin_socket: str) -> None:
    """Give a pod no new connections, of any Service, until that is undone or the daemon ends.

    Its live connections go on, unless --end-after says otherwise; `userproxy kill --backend` ends them.
    """
    if undo and end_after is not None:
        raise click.UsageError("--end-after and --undo exclude each other")
    with daemon_at(admin_socket) as daemon:
        answer = daemon.drain(backend, undo=undo, end_after=end_after)
    backends = _counted(answer.backends, "backend")
    if undo:
        click.echo(f"{_shown(backend)} may be picked again: {backends}")
        return
    click.echo(f"{_shown(backend)} gets no new connections: {backends}")
    if answer.connections:
        going_on = _counted(answer.connections, "connection")
        if end_after is not None:
            click.echo(f"{going_on} may go on for {end_after:g} s, and are reset then")
            return
        remedy = f"userproxy kill --backend {_shown(backend)}"
        click.echo(f"{going_on} may go on; to end them: {remedy}")


@click.command(
    "log-level",
    cls=Command,
    examples=(("userproxy log-level debug", "see more, until the daemon starts anew"),),
)
@click.argument("level", type=click.Choice(LEVELS), required=False)
@admin_socket_option
def log_level(*, level: str | None, admin_socket: str) -> None:
    """Show from which severity on the daemon and its workers log, or change that until it starts anew.

    SIGHUP, too, brings back what the configuration says. The access log has nothing to do with it.
    """
    with daemon_at(admin_socket) as daemon:
        click.echo(daemon.log_level(level))


def _carried(answer: Killed) -> str:
    """Who carried them, if not workers alone."""
    if not answer.carried:
        return ""
    return f": {answer.killed - answer.carried} relayed, {answer.carried} carried by the kernel"


def _left(answer: Killed) -> str:
    """What was not ended, and why that may be."""
    named = ", ".join(answer.left[:_NAMED])
    more = f" and {len(answer.left) - _NAMED} more" if len(answer.left) > _NAMED else ""
    reason = answer.problem or "an end that says nothing cannot be reset"
    return f"{answer.out_of_reach} carried by the kernel did not end in time: {named}{more} ({reason})"


def _meant(wanted: ConnectionFilter) -> str:
    """Which ones were meant, if not by their IDs."""
    words = {"service": "of", "client": "from", "backend": "to"}
    told = (f"{words[name]} {text}" for name, text in wanted.texts().items())
    return "".join(f" {each}" for each in told)


def _shown(backend: Address) -> str:
    return str(backend) if backend.port else backend.ip


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
