"""The maps and sets that rules look things up in, and the keys that they are looked up by.

What holds an address is there once for each family; what holds frontends, once more for those that only
packets from outside are meant for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.heartbeat import TIMEOUT_SECONDS
from userproxy.model.vouching import MOST_NOTED, NOTED_SECONDS
from userproxy.netfilter.ruleset.language import Datatype, Equals, Field, In, Key, Match, NotIn, Rule, Set

if TYPE_CHECKING:
    from collections.abc import Callable

USED_SECONDS = 60
MOST_USED = 65_536
"""More than there are Service ports on a node."""
PIN_SECONDS = 10_800
"""As the API has it by default; each rule says its own."""
MOST_ALIVE = 1024
"""More than there are workers, those included whose time is over and whom the kernel has yet to forget."""
MOST_VACANT = 65_536
MOST_PINS = 65_536
"""Clients with affinity, each with each of its frontends: 8 MB when it is full, and half a second to read."""

MOST_COUNTED = 65_536
"""Clients whose connections are counted, each with each of its frontends, and frontends."""

OUTSIDE_PREFIX = "outside-"

REFUSE = "refuse"
"""The chain that says so."""
TURNED_AWAY = "turned-away"
"""The counter of first packets that were one too many."""

PROTOCOLS = Set("protocols", (Datatype.INET_PROTO,))
UPLINKS = Set("uplinks", (Datatype.IFNAME,))
CLOSED = Set("closed", (Datatype.NF_PROTO,))
"""The families whose cluster IPs cannot be reached from outside: all, or none."""
ALIVE = Set("alive", (Datatype.MARK,), fades=TIMEOUT_SECONDS, most=MOST_ALIVE)
"""The marks of the workers that accept clients, as their heartbeats say."""
RELAY, OUTSIDE_RELAY = (
    Set(f"{prefix}relay", (Datatype.NF_PROTO,), to_chain=True) for prefix in ("", OUTSIDE_PREFIX)
)
"""By family, to the chain that sends packets to our listeners while workers are alive; nothing: none goes."""


STEER = Set("steer", (Datatype.NF_PROTO,), to_chain=True)
"""By family, to the chain that has packets wait for a steering process; nothing: none waits."""


class Side(msgspec.Struct, frozen=True):
    """Where frontends are looked up: those for everybody, or those for packets from outside.

    Attributes:
        prefix: of the names of its sets and chains.
        checked: frontends that are in `refused`, in `dropped`, in `limits`, or in the family's `ranged` or
            `steered`: most are not.
        refused: frontends to refuse.
        dropped: frontends to drop.
        limits: to the chain that lets so many connections live.
        listeners: to our listener.
        sizes: to the chain that picks one of so many pods.
        pods: to a pod, by its index too.
        masquerade: frontends that give packets from outside the node's own address.
        fallback: frontends of listeners that have pods behind them: what goes to these gets the node's own
            address, wherever it is from.
        used: frontends to which a new connection was sent lately.
        members: of frontends with affinity, each with each of its pods: to the chain that pins a client.
        pins: from a client, with a frontend, to the pod that it keeps.
        relayed: the name of the chain that sends packets to our listeners.
    """

    prefix: str
    checked: Set
    refused: Set
    dropped: Set
    limits: Set
    listeners: Set
    sizes: Set
    pods: Set
    masquerade: Set
    fallback: Set
    used: Set
    members: Set
    pins: Set
    relayed: str

    @property
    def sets(self) -> tuple[Set, ...]:
        """All of them."""
        return tuple(value for value in msgspec.structs.astuple(self) if isinstance(value, Set))


class Family(msgspec.Struct, frozen=True):
    """What differs between IPv4 and IPv6.

    Attributes:
        number: the kernel's (NFPROTO_IPV4).
        suffix: of the names of its sets and chains.
        address: the type of an address.
        source: of a packet.
        destination: of a packet.
        original_destination: of a packet's connection, before it was translated.
        anywhere: frontends for packets from anywhere.
        outside: frontends for packets from outside, which go before those.
        own: the frontends that are in `outside` at all.
        ranged: frontends that only clients in `ranges` may reach, from outside or not.
        ranges: those frontends, each with networks of clients.
        steered: frontends for whose packets a steering process is asked, from outside or not.
        inside: networks from which no packet is from outside.
        cluster_ips: those of our Services.
        guarded: listeners that nobody is to reach but through a Service.
        hairpins: pods, each with itself.
        vacant: frontends at whose listener nobody listened, a moment ago.
        clients: by worker, as a user, the client that its next connection is for.
        counted: frontends, each with how many connections it may have: those that live are counted there.
        counted_clients: clients, each with such a frontend, likewise.
    """

    number: int
    suffix: str
    address: Datatype
    source: Field
    destination: Field
    original_destination: Field
    anywhere: Side
    outside: Side
    own: Set
    ranged: Set
    ranges: Set
    steered: Set
    inside: Set
    cluster_ips: Set
    guarded: Set
    hairpins: Set
    vacant: Set
    clients: Set
    counted: Set
    counted_clients: Set

    @property
    def frontend(self) -> Key:
        """The key of a packet's frontend."""
        return self.destination, Field.PROTOCOL, Field.PORT

    @property
    def sender(self) -> Key:
        """The key of a packet's sender, as of a frontend."""
        return self.source, Field.PROTOCOL, Field.SOURCE_PORT

    @property
    def original_frontend(self) -> Key:
        """The same of a packet that was translated."""
        return self.original_destination, Field.PROTOCOL, Field.ORIGINAL_PORT

    @property
    def pod(self) -> Key:
        """Where a packet goes that was translated."""
        return self.destination, Field.PORT

    @property
    def candidate(self) -> tuple[Match, ...]:
        """Holds for a packet that may be for a Service."""
        return Equals(Field.FAMILY, self.number), In((Field.PROTOCOL,), PROTOCOLS.name)

    @property
    def from_outside(self) -> tuple[Match, ...]:
        """Holds for a packet from outside, in prerouting and postrouting."""
        return In((Field.DEVICE,), UPLINKS.name), NotIn((self.source,), self.inside.name)

    @property
    def stranger(self) -> tuple[Match, ...]:
        """Holds for a packet to a frontend that only clients in ranges may reach, from another one."""
        return In(self.frontend, self.ranged.name), NotIn((*self.frontend, self.source), self.ranges.name)

    @property
    def closed(self) -> tuple[Match, ...]:
        """Holds for a packet to a cluster IP, if these cannot be reached from outside."""
        return In((self.destination,), self.cluster_ips.name), In((Field.FAMILY,), CLOSED.name)

    @property
    def sets(self) -> tuple[Set, ...]:
        """All of them."""
        access = (
            self.own,
            self.ranged,
            self.ranges,
            self.steered,
            self.inside,
            self.cluster_ips,
            self.guarded,
        )
        others = self.hairpins, self.vacant, self.clients, self.counted, self.counted_clients
        return (*self.anywhere.sets, *self.outside.sets, *access, *others)

    def side(self, *, outside: bool) -> Side:
        """Where its frontends for packets from outside, or from anywhere, are looked up."""
        return self.outside if outside else self.anywhere


def _side(prefix: str, suffix: str, address: Datatype) -> Side:
    destination = (address, Datatype.INET_SERVICE)
    frontend = (address, Datatype.INET_PROTO, Datatype.INET_SERVICE)

    def name(what: str) -> str:
        return f"{prefix}{what}{suffix}"

    return Side(
        prefix=prefix,
        checked=Set(name("checked"), frontend),
        refused=Set(name("refused"), frontend),
        dropped=Set(name("dropped"), frontend),
        limits=Set(name("limits"), frontend, to_chain=True),
        listeners=Set(name("listeners"), frontend, data=destination),
        sizes=Set(name("sizes"), frontend, to_chain=True),
        pods=Set(name("pods"), (*frontend, Datatype.MARK), data=destination),
        masquerade=Set(name("masquerade"), frontend),
        fallback=Set(name("fallback"), frontend),
        used=Set(name("used"), frontend, fades=USED_SECONDS, most=MOST_USED),
        members=Set(name("members"), (*frontend, *destination), to_chain=True),
        pins=Set(name("affinity"), (address, *frontend), destination, fades=PIN_SECONDS, most=MOST_PINS),
        relayed=name("relayed"),
    )


def _family(number: int, suffix: str, address: Datatype, fields: tuple[Field, Field, Field]) -> Family:
    frontend = (address, Datatype.INET_PROTO, Datatype.INET_SERVICE)
    source, destination, original_destination = fields
    return Family(
        number=number,
        suffix=suffix,
        address=address,
        source=source,
        destination=destination,
        original_destination=original_destination,
        anywhere=_side("", suffix, address),
        outside=_side(OUTSIDE_PREFIX, suffix, address),
        own=Set(f"outside{suffix}", frontend),
        ranged=Set(f"ranged{suffix}", frontend),
        ranges=Set(f"ranges{suffix}", (*frontend, address), ranges=True),
        steered=Set(f"steered{suffix}", frontend),
        inside=Set(f"inside{suffix}", (address,), ranges=True),
        cluster_ips=Set(f"cluster-ips{suffix}", (address,)),
        guarded=Set(f"guarded{suffix}", frontend),
        hairpins=Set(f"hairpins{suffix}", (address, address)),
        vacant=Set(f"vacant{suffix}", frontend, fades=TIMEOUT_SECONDS, most=MOST_VACANT),
        clients=Set(
            f"clients{suffix}",
            (Datatype.UID,),
            data=(address,),
            fades=NOTED_SECONDS,
            most=MOST_NOTED,
        ),
        counted=Set(f"counted{suffix}", (*frontend, Datatype.MARK), most=MOST_COUNTED),
        counted_clients=Set(
            f"counted-clients{suffix}", (address, *frontend, Datatype.MARK), most=MOST_COUNTED
        ),
    )


IPV4 = _family(2, "4", Datatype.IPV4_ADDR, (Field.SOURCE, Field.DESTINATION, Field.ORIGINAL_DESTINATION))
IPV6 = _family(10, "6", Datatype.IPV6_ADDR, (Field.SOURCE6, Field.DESTINATION6, Field.ORIGINAL_DESTINATION6))
FAMILIES = (IPV4, IPV6)

SETS = (
    PROTOCOLS,
    UPLINKS,
    CLOSED,
    ALIVE,
    RELAY,
    OUTSIDE_RELAY,
    STEER,
    *(spec for family in FAMILIES for spec in family.sets),
)


def each(rules: Callable[[Family], tuple[Rule, ...]]) -> tuple[Rule, ...]:
    """The rules of all families, those of IPv4 first."""
    return tuple(rule for family in FAMILIES for rule in rules(family))
