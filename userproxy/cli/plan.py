"""`userproxy plan`: what would be served, how, and what not and why. Nothing is touched."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.app import open_source
from userproxy.cli.commands import Command, Option
from userproxy.cli.daemon import Environment, daemon_at, pass_environment
from userproxy.cli.difference import differences
from userproxy.cli.filters import Wanted, wanted_options
from userproxy.cli.listing import SECTION, Listing, Report, listing_options, show
from userproxy.cli.settings import Mistakes, settings_options
from userproxy.cli.tables import Column, mapping_text, printable
from userproxy.config import ConfigError, complete, lacks_source
from userproxy.control.daemon import StartError
from userproxy.control.forecast import Forecast, forecast
from userproxy.control.host_address import Surroundings
from userproxy.logs import silenced
from userproxy.model.planned import DROPPED, HELD, LEFT_OUT, REFUSED, SERVED, PlannedRow
from userproxy.model.snapshot import Problem
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.elements.text import table_of
from userproxy.netfilter.host import Host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.cli.settings import Chosen
    from userproxy.config import Config
    from userproxy.model.snapshot import Snapshot

_OUTCOMES = (SERVED, HELD, REFUSED, DROPPED, LEFT_OUT)
COLUMNS: tuple[Column[PlannedRow], ...] = (
    Column("SERVICE", lambda row: row.service, breaks="/:"),
    Column("PROTOCOL", lambda row: row.protocol, keep=1),
    Column("PATH", lambda row: row.path, keep=3),
    Column("POLICY", lambda row: row.policy, keep=2),
    Column("FAMILY", lambda row: row.family, wide=True),
    Column("OUTCOME", lambda row: row.outcome),
    Column("ENTRIES", lambda row: ",".join(each.rpartition(" ")[2] for each in row.entries), breaks=","),
    Column("KINDS", lambda row: ",".join(dict.fromkeys(each.split()[0] for each in row.entries)), wide=True),
    Column("LISTENER", lambda row: row.listener or "", keep=2),
    Column("BACKENDS", lambda row: ",".join(row.backends), breaks=",", flexible=True),
    Column("ENDPOINTS", lambda row: str(row.endpoints), wide=True, right=True),
    Column("REASON", lambda row: row.reason, breaks=" ", flexible=True),
)


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `-o json` prints: one object."""

    node: str
    host_ips: tuple[str, ...]
    services: tuple[PlannedRow, ...]
    problems: tuple[Problem, ...]


@click.command(
    cls=Command,
    examples=(
        ("userproxy plan --manifests /etc/userproxy/services", "what would become of these files"),
        ("userproxy plan --kubeconfig ~/.kube/config --node-name host1", "what a node would do in a cluster"),
        ("userproxy plan --config /var/lib/kube-proxy/config.conf", "before kube-proxy is replaced"),
        ("userproxy plan --manifests services.yaml --strict", "in CI: fails if a Service is not served"),
        ("userproxy plan --manifests services.yaml -o nft", "the rules that it comes to"),
        ("userproxy plan --config new.yaml --diff", "what SIGHUP would change after an edit"),
    ),
)
@click.option("--strict", is_flag=True, cls=Option, section=SECTION, help="Fail if anything is not served.")
@click.option(
    "--diff",
    "compared",
    is_flag=True,
    cls=Option,
    section=SECTION,
    help="Only what would be different from what the daemon at --admin-socket serves.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For the API server to tell everything.",
)
@wanted_options(_OUTCOMES, "Only those with this outcome.")
@listing_options(PlannedRow, "nft")
@settings_options
@pass_environment
def plan(  # noqa: PLR0913 - one for each option
    environment: Environment,
    /,
    *,
    chosen: Chosen,
    listing: Listing,
    wanted: Wanted,
    strict: bool,
    compared: bool,
    timeout: float,
) -> None:
    """Show what a daemon with these settings would serve, how, and what not and why. Nothing is touched.

    One look at the manifests or at the API server, planned as `userproxy run` would on this node, or for a
    node that --node-name, --host-ip and --cluster-cidr describe. No root is needed, and a daemon may run
    beside it.

    `-o nft` prints the table that netfilter would be given, which `nft -c -f -` accepts. The exit code is 0
    whatever is planned; with --strict it is 1 while a Service is not served, or has a problem.
    """
    config = _config(chosen)
    with silenced():
        told = forecast(config, _snapshot(config, timeout), _surroundings)
    rows = wanted.of(told.services, _outcome_of)
    if compared:
        _compare(config, rows, wanted)
    elif listing.output == "nft":
        click.echo(table_of(told.state), nl=False)
    elif listing.for_machines:
        click.echo(_whole(told, listing, rows))
    else:
        nothing = "no Service matches" if wanted else "no Services"
        show(Report(COLUMNS, listing, nothing), rows, environment)
        click.echo("\n".join(["", *summary(told)]))
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    failures = [row for row in told.services if row.outcome != SERVED]
    if strict and (failures or told.problems):
        raise click.ClickException(
            f"not everything would be served: {_counted(len(failures), 'Service port')}, "
            f"{_counted(len(told.problems), 'problem')}"
        )


def _compare(config: Config, rows: Sequence[PlannedRow], wanted: Wanted) -> None:
    """Print what would be different."""
    of_service = msgspec.structs.replace(wanted, state="")
    with daemon_at(str(config.admin_socket)) as daemon:
        running = of_service.of(daemon.services(), lambda _row: "")
    lines = list(differences(running, rows))
    for line in lines:
        click.echo(printable(line))
    if not lines:
        click.echo("nothing would be different", err=True)


def summary(told: Forecast) -> list[str]:
    """What it comes to, in a few lines, and then each problem."""
    services: dict[str, list[PlannedRow]] = {}
    for row in told.services:
        services.setdefault(row.service, []).append(row)
    outcomes = Counter(_best(rows) for rows in services.values())
    parts = [f"{outcomes[outcome]:,} {outcome}" for outcome in _OUTCOMES if outcomes[outcome]]
    where = f"on {told.node} ({', '.join(told.host_ips)})"
    lines = [f"{_counted(len(services), 'Service port')} {where}: {', '.join(parts) or 'none to serve'}"]
    if told.problems:
        lines.append(f"{_counted(len(told.problems), 'problem')}:")
    for reason, count in sorted(Counter(problem.reason for problem in told.problems).items()):
        lines.append(f"  {reason}: {count:,}")
        lines += [f"    {printable(str(each))}" for each in told.problems if each.reason == reason]
    return lines


def _best(rows: list[PlannedRow]) -> str:
    return min((row.outcome for row in rows), key=_OUTCOMES.index)


def _outcome_of(row: PlannedRow) -> str:
    return row.outcome


def _whole(told: Forecast, listing: Listing, rows: Sequence[PlannedRow]) -> str:
    report = PlanReport(
        node=told.node,
        host_ips=told.host_ips,
        services=tuple(listing.sorted(rows)),
        problems=told.problems,
    )
    return msgspec.json.encode(report).decode() if listing.output == "json" else mapping_text(report)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _config(chosen: Chosen) -> Config:
    """The configuration, of this node or of one that is described: its addresses need not be here."""
    reading = chosen.read()
    mistakes = (*reading.mistakes, *lacks_source(reading.settings))
    if mistakes:
        raise Mistakes(ConfigError(*map(str, mistakes)))
    config = complete(reading)
    if not config.host_ips:
        raise click.ClickException(
            "this node has no default route to take its primary address from: name one with --host-ip"
        )
    return config


def _surroundings() -> Surroundings:
    try:
        with closing(Host()) as host:
            return Surroundings(host.addresses(), host.uplinks())
    except NetfilterError as error:
        raise click.ClickException(str(error)) from None


def _snapshot(config: Config, seconds: float) -> Snapshot:
    try:
        return asyncio.run(_first_snapshot(config, seconds))
    except StartError as error:
        raise click.ClickException(str(error)) from None


async def _first_snapshot(config: Config, seconds: float) -> Snapshot:
    """What the source says at once.

    Raises:
        StartError: there is no such source, or it does not say.
    """
    source = await open_source(config)
    told: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

    def publish(snapshot: Snapshot) -> None:
        if not told.done():
            told.set_result(snapshot)

    async with asyncio.TaskGroup() as group:
        following = group.create_task(source.run(publish), name="source")
        await asyncio.wait({told}, timeout=seconds)
        following.cancel()
    if not told.done():
        raise StartError(f"{source.problem or source.kind}: nothing was told within {seconds:g} s")
    return told.result()
