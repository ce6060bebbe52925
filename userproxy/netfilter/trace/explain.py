"""What becomes of the first packet of a connection, in the kernel's own terms. Pure but for what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.heartbeat import mark_of
from userproxy.model.service import Protocol
from userproxy.netfilter.elements.packing import INDEX, packing_of
from userproxy.netfilter.ruleset.language import TCP, UDP, Constant, In, NotIn, Queue, Simple
from userproxy.netfilter.ruleset.made import Pick, Relay, parse
from userproxy.netfilter.ruleset.sets import ALIVE, OUTSIDE_PREFIX
from userproxy.netfilter.ruleset.text import rule as text_of
from userproxy.netfilter.trace.walk import PASSES, Packet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.netfilter.trace.real import Foreign, Real
    from userproxy.netfilter.trace.walk import Step, Table

_NUMBERS = {Protocol.TCP: TCP, Protocol.UDP: UDP}
_REASONS = {
    "closed": "it is from outside, and cluster IPs are for pods and nodes (--cluster-ips-from-outside)",
    "cluster-ips": "the Service has no such port",
    "dropped": "its traffic policy is Local, and no endpoint is on this node",
    "guarded": "it is a listener of ours, that is to be reached through its Service alone",
    "hairpins": "it is no packet of a connection that conntrack knows",
    "ranges": "its source is in none of the Service's source ranges",
    "refused": "the Service has no endpoints that may be used",
}
"""Why whoever matches a set is refused or dropped."""
_MASQUERADES = (Simple.MASQUERADE.value, Simple.MASQUERADE_AT_RANDOM.value)
_REFUSALS = (Simple.RESET.value, Simple.UNREACHABLE.value)


class RuleTaken(msgspec.Struct, frozen=True):
    """A rule of ours that applied.

    Attributes:
        hook: `prerouting -100`.
        chain: where it stands.
        rule: as nft writes it.
        destination: where the packet is addressed to after it.
    """

    hook: str
    chain: str
    rule: str
    destination: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the first packet of a connection.

    Attributes:
        protocol: of the packet.
        source: its sender; empty for the host itself.
        destination: what it is addressed to.
        device: by which it comes in; empty for the host's own.
        outside: whether it is from outside of the cluster.
        outcome: `relayed`, `sent to a pod`, `refused`, `dropped`, or `not captured`.
        why: it is refused or dropped; empty otherwise.
        listener: of ours that takes it while a worker accepts; empty if there is none.
        pods: of which the kernel picks one, evenly: now, or behind the listener, when no worker accepts.
        queue: where it waits for a steering process, which chooses if there is one; 0: in none.
        alive: the workers that accept clients, by their places; None if it does not depend on them.
        masqueraded: whether the pod sees this node as its client.
        rules: of ours that applied, in order.
        others: chains of others that it passes too, `ip nat PREROUTING, prerouting -100`.
        differences: between our rules in the kernel and those that they should be.
    """

    protocol: str
    source: str
    destination: str
    device: str
    outside: bool
    outcome: str
    why: str
    listener: str
    pods: tuple[str, ...]
    queue: int
    alive: tuple[int, ...]
    masqueraded: bool
    rules: tuple[RuleTaken, ...]
    others: tuple[str, ...]
    differences: tuple[str, ...]


def explain(real: Real, protocol: Protocol, destination: Address, source: str = "") -> Explanation:
    """Follow a packet through the rules that the kernel holds.

    Args:
        real: reads them.
        protocol: of the packet.
        destination: what it is addressed to.
        source: the IP of its sender; empty for the host itself.

    Raises:
        NetfilterError: they cannot be read.
    """
    table, differences = real.table()
    way = real.way_to(source) if source else None
    of_host = way is None or way.local
    device = "" if way is None or way.local else way.device
    packet = Packet(
        source=source or destination.ip,
        destination=destination,
        device=device,
        protocol=_NUMBERS[protocol],
    )
    first = "output" if of_host else "prerouting"
    verdict, arrived = table.send(packet, first)
    points = [first]
    if verdict in PASSES:
        points.append(_next(real, first, arrived))
        if points[-1] == "forward":
            points.append("postrouting")
        verdict, arrived = table.send(arrived, *points[1:])
    why = _reason(table.steps) if verdict in (*_REFUSALS, Simple.DROP.value) else ""
    listener, pods = _led_to(table, packet)
    rules, guarded = tuple(map(_taken, table.steps)), _is_ours(table, arrived)
    return Explanation(
        protocol=protocol.value,
        source=source,
        destination=str(destination),
        device=device,
        outside=_is_outside(table, packet),
        outcome=_outcome(verdict, arrived, guarded=guarded),
        why=why,
        listener=listener,
        pods=pods,
        queue=next(
            (step.rule.action.first for step in table.steps if isinstance(step.rule.action, Queue)), 0
        ),
        alive=tuple(_alive(table)),
        masqueraded=verdict in _MASQUERADES,
        rules=rules,
        others=tuple(map(_shown, (one for one in real.others() if one.hook.point in points))),
        differences=differences,
    )


def _reason(steps: list[Step]) -> str:
    """Why the last packet was refused or dropped: by the set that the deciding rule asked."""
    for step in reversed(steps):
        for match in reversed(step.rule.matches):
            if isinstance(match, In | NotIn):
                name = match.set.removeprefix(OUTSIDE_PREFIX).rstrip("46")
                if name in _REASONS:
                    return _REASONS[name]
    return ""


def _taken(step: Step) -> RuleTaken:
    hook = f"{step.hook.point} {step.hook.priority}"
    return RuleTaken(hook, step.chain, text_of(step.rule), str(step.packet.destination))


def _next(real: Real, first: str, packet: Packet) -> str:
    """The hook after routing."""
    if real.way_to(packet.destination.ip).local:
        return "input"
    return "postrouting" if first == "output" else "forward"


def _outcome(verdict: str, packet: Packet, *, guarded: bool) -> str:
    if verdict in _REFUSALS:
        return "refused"
    if verdict == Simple.DROP.value:
        return "dropped"
    if packet.original is None:
        return "not captured"
    return "relayed" if guarded else "sent to a pod"


def _is_ours(table: Table, packet: Packet) -> bool:
    """Whether a packet is addressed to a listener of ours."""
    return table.find(packet.family.frontend, packet.family.guarded.name, packet) is not None


def _led_to(table: Table, packet: Packet) -> tuple[str, tuple[str, ...]]:
    """Our listener for a packet, if it has one, and the pods that the kernel may send it to, by our maps."""
    family, packing = packet.family, packing_of(packet.destination.ip)
    own = _is_outside(table, packet) and table.find(family.frontend, family.own.name, packet) is not None
    side, key = family.side(outside=own), table.key(family.frontend, packet)
    pick = parse(str(table.find(family.frontend, side.sizes.name, packet) or ""))
    size = pick.size if isinstance(pick, Pick) else 0
    found = [table.sets[side.listeners.name].get(key)]
    found += [table.sets[side.pods.name].get(key + INDEX.pack(index)) for index in range(size)]
    listener, *pods = (str(packing.unpack_address(data)) if isinstance(data, bytes) else "" for data in found)
    return listener, tuple(pods)


def _is_outside(table: Table, packet: Packet) -> bool:
    """Whether a packet is from outside of the cluster."""
    return bool(packet.device) and all(table.holds(match, packet) for match in packet.family.from_outside)


def _alive(table: Table) -> Iterator[int]:
    workers = max((made.workers for made in map(parse, table.chains) if isinstance(made, Relay)), default=0)
    nobody = Packet(destination=Address("127.0.0.1", 0))
    for index in range(workers):
        if table.find((Constant(mark_of(index)),), ALIVE.name, nobody) is not None:
            yield index


def _shown(one: Foreign) -> str:
    return f"{one.table} {one.chain}, {one.hook.point} {one.hook.priority}"
