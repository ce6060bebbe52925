"""The ruleset as a value: what the kernel is told once, whatever the number of Services. Pure.

Rules are static; Services are elements of maps and sets (`elements.py`). README.md beside this file draws
the hooks and says why each rule and each priority is as it is.
"""

from __future__ import annotations

import enum

import msgspec

TABLE = "userproxy"


class Datatype(enum.Enum):
    """What a field of a key is to nft: its name, number and size in bytes."""

    IPV4_ADDR = ("ipv4_addr", 7, 4)
    INET_PROTO = ("inet_proto", 12, 1)
    INET_SERVICE = ("inet_service", 13, 2)
    MARK = ("mark", 19, 4)
    """A plain number of 32 bits in the host's byte order: nft has no other name for one in a key."""

    @property
    def number(self) -> int:
        """The number by which nft, not the kernel, knows the type when it lists a set."""
        return self.value[1]

    @property
    def size(self) -> int:
        """Bytes, unpadded."""
        return self.value[2]


class Field(enum.Enum):
    """What is read from a packet or from its connection, as nft writes it."""

    FAMILY = "meta nfproto"
    PROTOCOL = "meta l4proto"
    SOURCE = "ip saddr"
    DESTINATION = "ip daddr"
    PORT = "th dport"
    STATE = "ct state"
    STATUS = "ct status"


class Random(msgspec.Struct, frozen=True):
    """A random number, evenly from 0 to `modulus` - 1."""

    modulus: int


Key = tuple[Field | Random, ...]


class Equals(msgspec.Struct, frozen=True):
    """The field has this value."""

    field: Field
    value: int


class HasAny(msgspec.Struct, frozen=True):
    """At least one of these bits is set in the field."""

    field: Field
    bits: int


class In(msgspec.Struct, frozen=True):
    """The key is an element of the set."""

    key: Key
    set: str


class Note(msgspec.Struct, frozen=True):
    """The kernel notes the key in the set, or that it was seen again. Holds unless the set is full."""

    key: Key
    set: str


Match = Equals | HasAny | In | Note


class DnatBy(msgspec.Struct, frozen=True):
    """Rewrite the destination to what the map has under the key, and leave; no such key: go on."""

    key: Key
    map: str


class JumpBy(msgspec.Struct, frozen=True):
    """Jump to the chain that the map has under the key; no such key: go on."""

    key: Key
    map: str


class Jump(msgspec.Struct, frozen=True):
    """Walk another chain, and come back unless it decides."""

    chain: str


class Goto(msgspec.Struct, frozen=True):
    """Walk another chain instead of the rest of this one."""

    chain: str


class Simple(enum.Enum):
    """A decision without arguments, as nft writes it."""

    ACCEPT = "accept"
    DROP = "drop"
    MASQUERADE = "masquerade"
    RESET = "reject with tcp reset"
    UNREACHABLE = "reject"  # with icmpx port-unreachable, which nft does not spell out


Action = DnatBy | JumpBy | Jump | Goto | Simple


class Rule(msgspec.Struct, frozen=True):
    """If all matches hold, the action."""

    matches: tuple[Match, ...]
    action: Action


class Hook(msgspec.Struct, frozen=True):
    """Where a base chain is attached: `type nat hook prerouting priority -100`."""

    type: str
    point: str
    priority: int


class Chain(msgspec.Struct, frozen=True):
    """Rules in order; a base chain has a hook, and accepts what no rule decides."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


class Set(msgspec.Struct, frozen=True):
    """A set, or a map if there is something under each key.

    Attributes:
        name: within the table.
        key: the types of the key's fields.
        data: the types of the value's fields; none for a set, or for a map to chains.
        to_chain: whether this is a map to chains.
        fades: if rules note elements in it: seconds after which the kernel forgets one; else 0.
    """

    name: str
    key: tuple[Datatype, ...]
    data: tuple[Datatype, ...] = ()
    to_chain: bool = False
    fades: int = 0


class Ruleset(msgspec.Struct, frozen=True):
    """The static part of our table."""

    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]


FAMILY_IPV4 = 2
TCP, UDP = 6, 17
STATE_ESTABLISHED, STATE_RELATED, STATE_NEW = 0x02, 0x04, 0x08
STATUS_DNAT = 0x20
"""IPS_DST_NAT: the connection's destination has been rewritten (linux/netfilter/nf_conntrack_common.h)."""

_ADDRESS = (Datatype.IPV4_ADDR, Datatype.INET_SERVICE)
_FRONTEND = (Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE)

PROTOCOLS = Set("protocols", (Datatype.INET_PROTO,))
REFUSED = Set("refused4", _FRONTEND)
DROPPED = Set("dropped4", _FRONTEND)
LISTENERS = Set("listeners4", _FRONTEND, data=_ADDRESS)
SIZES = Set("sizes4", _FRONTEND, to_chain=True)
PODS = Set("pods4", (*_FRONTEND, Datatype.MARK), data=_ADDRESS)
GUARDED = Set("guarded4", _FRONTEND)
HAIRPINS = Set("hairpins4", (Datatype.IPV4_ADDR, Datatype.IPV4_ADDR))
USED = Set("used4", _FRONTEND, fades=60)
SETS = (PROTOCOLS, REFUSED, DROPPED, LISTENERS, SIZES, PODS, GUARDED, HAIRPINS, USED)

_IPV4 = Equals(Field.FAMILY, FAMILY_IPV4)
_TCP_OR_UDP = In((Field.PROTOCOL,), PROTOCOLS.name)
_CANDIDATE = (_IPV4, _TCP_OR_UDP)
_KEY: Key = (Field.DESTINATION, Field.PROTOCOL, Field.PORT)

DENY_PRIORITY = -110
"""Before dstnat, where the packet still carries the Service's address, and before every other proxy's nat."""
DSTNAT_PRIORITY = -100
FILTER_PRIORITY = 0
SRCNAT_PRIORITY = 100

_DENY = Rule((HasAny(Field.STATE, STATE_NEW), *_CANDIDATE), Jump("deny"))
_CAPTURE = Rule(_CANDIDATE, Jump("capture"))

STATIC_CHAINS = (
    Chain(
        "refuse",
        (
            Rule((Equals(Field.PROTOCOL, TCP),), Simple.RESET),
            Rule((), Simple.UNREACHABLE),
        ),
    ),
    Chain(
        "deny",
        (
            Rule((*_CANDIDATE, In(_KEY, REFUSED.name)), Goto("refuse")),
            Rule((*_CANDIDATE, In(_KEY, DROPPED.name)), Simple.DROP),
        ),
    ),
    Chain(
        "capture",
        (
            Rule(_CANDIDATE, DnatBy(_KEY, LISTENERS.name)),
            Rule(_CANDIDATE, JumpBy(_KEY, SIZES.name)),
            Rule(_CANDIDATE, DnatBy((*_KEY, Random(1)), PODS.name)),
        ),
    ),
    Chain("deny-prerouting", (_DENY,), Hook("filter", "prerouting", DENY_PRIORITY)),
    Chain("deny-output", (_DENY,), Hook("filter", "output", DENY_PRIORITY)),
    Chain("capture-prerouting", (_CAPTURE,), Hook("nat", "prerouting", DSTNAT_PRIORITY)),
    Chain("capture-output", (_CAPTURE,), Hook("nat", "output", DSTNAT_PRIORITY)),
    Chain(
        "guard-input",
        (
            Rule((HasAny(Field.STATE, STATE_ESTABLISHED | STATE_RELATED),), Simple.ACCEPT),
            Rule((HasAny(Field.STATUS, STATUS_DNAT),), Simple.ACCEPT),
            Rule((*_CANDIDATE, In(_KEY, GUARDED.name)), Goto("refuse")),
        ),
        Hook("filter", "input", FILTER_PRIORITY),
    ),
    Chain(
        "hairpin-postrouting",
        (
            Rule(
                (
                    HasAny(Field.STATUS, STATUS_DNAT),
                    _IPV4,
                    In((Field.SOURCE, Field.DESTINATION), HAIRPINS.name),
                ),
                Simple.MASQUERADE,
            ),
        ),
        Hook("nat", "postrouting", SRCNAT_PRIORITY),
    ),
)

_PICK_PREFIX = "pick-"


def pick_chain(size: int) -> Chain:
    """The chain that picks one of `size` pods evenly: one chain for all Service ports that have so many."""
    noted = (*_CANDIDATE, Note(_KEY, USED.name))
    return Chain(pick_name(size), (Rule(noted, DnatBy((*_KEY, Random(size)), PODS.name)),))


def pick_name(size: int) -> str:
    """The name of the chain that picks one of `size` pods."""
    return f"{_PICK_PREFIX}{size}"


def pick_size(name: str) -> int:
    """The number of pods that a chain picks from; 0 if it is no such chain."""
    digits = name.removeprefix(_PICK_PREFIX)
    size = int(digits) if digits != name and digits.isascii() and digits.isdigit() else 0
    return size if size and pick_name(size) == name else 0


def ruleset(sizes: frozenset[int] = frozenset()) -> Ruleset:
    """The static part of the table, with the chains that pick one of so many pods.

    Args:
        sizes: the numbers of pods that Service ports have; each above 0.
    """
    return Ruleset(SETS, (*STATIC_CHAINS, *(pick_chain(size) for size in sorted(sizes))))
