"""`userproxy explain`: what becomes of a packet, by the rules in the kernel and by what the daemon knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from userproxy.cli.commands import Command
from userproxy.cli.daemon import admin_socket_option
from userproxy.model.address import Address, canonical_ip
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow
from userproxy.model.service import Protocol
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.trace.explain import Explanation
from userproxy.netfilter.trace.sent import Sent
from userproxy.ops.client import AdminClient, AdminError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 12


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a packet.

    Attributes:
        packet: by the rules in the kernel.
        services: that answer at its destination, by the daemon.
        backends: of these.
        daemon: why the daemon does not say more; empty if it does.
        sent: what became of a packet that was sent.
        connection: the daemon's row of the connection that it made.
    """

    packet: Explanation
    services: tuple[ServiceRow, ...] = ()
    backends: tuple[BackendRow, ...] = ()
    daemon: str = ""
    sent: Sent | None = None
    connection: ConnectionRow | None = None


class _AddressType(click.ParamType[Address]):
    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _IpType(click.ParamType[str]):
    name = "IP"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return canonical_ip(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    cls=Command,
    examples=(
        ("userproxy explain 10.3.241.152:80", "what becomes of a connection of this node"),
        ("userproxy explain --from 10.0.1.3 10.3.241.152:80", "of a pod's"),
        ("userproxy explain --udp --send 10.3.240.10:53", "and of a datagram that is sent"),
    ),
)
@admin_socket_option
@click.option("--from", "source", type=_IpType(), help="The sender; this node itself by default.")
@click.option("--udp", is_flag=True, help="A datagram, instead of a TCP connection.")
@click.option("--send", is_flag=True, help="Connect from this node too, and tell where that led.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.argument("destination", metavar="ADDRESS:PORT", type=_AddressType())
def explain(
    admin_socket: str, source: str | None, udp: bool, send: bool, output: str, destination: Address
) -> None:
    """Tell what becomes of the first packet of a connection to ADDRESS:PORT, and why.

    Its way is that of the rules in this node's kernel, read now. What stands behind them the daemon says, if
    it runs. Nothing is changed, and without --send nothing is sent. Needs root.
    """
    if send and source:
        raise click.UsageError("--send sends from this node: leave --from out")
    protocol = Protocol.UDP if udp else Protocol.TCP
    known = _ask(_explained(protocol, destination, source or ""), admin_socket)
    if send:
        known = _sent(known, protocol, destination, admin_socket)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(known)).decode())
        return
    for line in _lines(known):
        click.echo(line)


def _explained(protocol: Protocol, destination: Address, source: str) -> Explanation:
    from userproxy.netfilter.trace import explain, real  # noqa: PLC0415 - pyroute2 is slow to import

    try:
        kernel = real.Real()
        try:
            return explain.explain(kernel, protocol, destination, source)
        finally:
            kernel.close()
    except NetfilterError as error:
        raise click.ClickException(str(error)) from None


def _ask(packet: Explanation, path: str) -> Known:
    """Add what the daemon knows."""
    try:
        with AdminClient(path) as daemon:
            services = tuple(
                row
                for row in daemon.services()
                if packet.destination in row.frontends and row.protocol == packet.protocol
            )
            names = {row.service for row in services}
            backends = tuple(row for row in daemon.backends() if row.service in names)
    except AdminError as error:
        return Known(packet=packet, daemon=str(error))
    return Known(packet=packet, services=services, backends=backends)


def _sent(known: Known, protocol: Protocol, destination: Address, path: str) -> Known:
    """Send a packet for real."""
    from userproxy.netfilter.trace.sent import Sender  # noqa: PLC0415 - likewise

    try:
        with Sender(protocol, destination) as sender:
            sent = sender.send()
            return msgspec.structs.replace(known, sent=sent, connection=_row_of(sent.source, path))
    except (OSError, NetfilterError) as error:
        raise click.ClickException(f"cannot send to {destination}: {error}") from None


def _row_of(client: str, path: str) -> ConnectionRow | None:
    try:
        with AdminClient(path) as daemon:
            return next((row for row in daemon.connections() if row.client == client), None)
    except AdminError:
        return None


def _lines(known: Known) -> Iterator[str]:
    packet = known.packet
    sender = f"from {packet.source}" if packet.source else "from this node"
    way = f", in by {packet.device}, {'outside' if packet.outside else 'inside'}" if packet.device else ""
    yield f"{packet.protocol} to {packet.destination} {sender}{way}"
    yield _field("outcome", _outcome(packet))
    for row in known.services:
        policy = f"{row.path}, policy {row.policy}, {row.backends_up} of {row.backends} backends up"
        yield _field("Service", f"{row.service}: {policy}")
    if not known.services and not known.daemon:
        yield _field("Service", "none answers there")
    if packet.outcome == "sent to a pod":
        yield _field(
            "the pod sees", "this node as its client" if packet.masqueraded else "the client's address"
        )
    for problem in dict.fromkeys(problem for row in known.services for problem in row.problems):
        yield _field("problem", problem)
    for difference in packet.differences:
        yield _field("problem", f"our rules in the kernel are not as they should be: {difference}")
    if known.daemon:
        yield _field("daemon", known.daemon)
    if known.sent:
        led = f"led to {known.sent.led_to}" if known.sent.led_to else "translated by nobody"
        yield _field(
            "sent",
            f"{known.sent.answer} after {known.sent.milliseconds:g} ms, from {known.sent.source}: {led}",
        )
    if known.connection:
        yield _field("listed", f"as {known.connection.id}, to {known.connection.backend or 'nobody yet'}")
    yield from _rules(packet)
    yield from _picked(known)


def _outcome(packet: Explanation) -> str:
    match packet.outcome:
        case "relayed":
            others = f"; the kernel has {', '.join(packet.pods)} behind it" if packet.pods else ""
            workers = f"{len(packet.alive)} worker{'s' if len(packet.alive) != 1 else ''} accept" + (
                "s" if len(packet.alive) == 1 else ""
            )
            return f"relayed by the listener {packet.listener} ({workers}){others}"
        case "sent to a pod":
            why = "" if packet.alive else ", as no worker accepts" if packet.listener else ""
            asked = (
                f"asks the steering process (queue {packet.queue}); while there is none: "
                if packet.queue
                else ""
            )
            return f"{asked}sent by the kernel to one of {', '.join(packet.pods)}, evenly{why}"
        case "not captured":
            return "not captured: no rule of ours takes it; it goes on to where its route leads"
    return f"{packet.outcome}: {packet.why}" if packet.why else packet.outcome


def _rules(packet: Explanation) -> Iterator[str]:
    yield ""
    yield "Rules of ours that apply:" if packet.rules else "No rule of ours applies."
    for taken in packet.rules:
        yield f"  {taken.hook:<18}{taken.chain:<26}{taken.rule}"
    if packet.others:
        yield "Chains of others on its way:"
        for other in packet.others:
            yield f"  {other}"


def _picked(known: Known) -> Iterator[str]:
    if known.backends:
        yield ""
        yield "Who may be picked:"
    for row in known.backends:
        reason = f"  {row.reason}" if row.reason else ""
        yield f"  {row.backend:<24}{row.node:<16}{row.state:<12}{row.connections} connections{reason}"


def _field(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}} {text}"
