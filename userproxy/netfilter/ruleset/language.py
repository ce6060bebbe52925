"""What the rules are written in: the part of nftables that we use, as values."""

from __future__ import annotations

import enum

import msgspec

TABLE = "userproxy"
TCP, UDP = 6, 17


class Datatype(enum.Enum):
    """What a field of a key is to nft: its name, number and size in bytes.

    Addresses and ports are in network order, the others in the host's.
    """

    NF_PROTO = ("nf_proto", 2, 1)
    IPV4_ADDR = ("ipv4_addr", 7, 4)
    IPV6_ADDR = ("ipv6_addr", 8, 16)
    INET_PROTO = ("inet_proto", 12, 1)
    INET_SERVICE = ("inet_service", 13, 2)
    MARK = ("mark", 19, 4)
    """A plain number of 32 bits in the host's byte order: nft has no other name for one in a key."""
    UID = ("uid", 24, 4)
    CT_DIR = ("ct_dir", 27, 1)
    IFNAME = ("ifname", 41, 16)

    @property
    def number(self) -> int:
        """The number by which nft, not the kernel, knows the type when it lists a set."""
        return self.value[1]

    @property
    def size(self) -> int:
        """Bytes, unpadded."""
        return self.value[2]


def length_of(types: tuple[Datatype, ...]) -> int:
    """Bytes of a key, or of what is under one: the fields of a concatenation are padded to 4."""
    return types[0].size if len(types) == 1 else sum(-(-each.size // 4) * 4 for each in types)


class Field(enum.Enum):
    """What is read from a packet or from its connection, as nft writes it."""

    FAMILY = "meta nfproto"
    PROTOCOL = "meta l4proto"
    MARK = "meta mark"
    DEVICE = "meta iifname"
    USER = "meta skuid"
    """Whose the socket is that sends the packet. Nothing equals it where no socket of this host does."""
    SOURCE = "ip saddr"
    SOURCE6 = "ip6 saddr"
    DESTINATION = "ip daddr"
    DESTINATION6 = "ip6 daddr"
    PORT = "th dport"
    SOURCE_PORT = "th sport"
    ORIGINAL_DESTINATION = "ct original ip daddr"
    ORIGINAL_DESTINATION6 = "ct original ip6 daddr"
    ORIGINAL_PORT = "ct original proto-dst"
    ORIGINAL_SOURCE_PORT = "ct original proto-src"
    CONNECTION = "ct id"
    """The kernel's number of the connection, as it lists it: nearly no other one has it meanwhile."""
    CONNECTION_PROTOCOL = "ct protocol"
    DIRECTION = "ct direction"
    TCP_FLAGS = "tcp flags"
    STATE = "ct state"
    STATUS = "ct status"
    TRANSPARENT = "socket transparent"
    """Of the socket that would get the packet, whether it may have others' addresses. Nothing equals it where
    there is no socket."""


class Random(msgspec.Struct, frozen=True):
    """A random number, evenly from `offset` on, of `modulus` numbers: of one, it is that number."""

    modulus: int
    offset: int = 0


class Constant(msgspec.Struct, frozen=True):
    """The same number of 32 bits for every packet. nft can only write that as bits of the packet's mark."""

    value: int


class Bits(msgspec.Struct, frozen=True):
    """Of a field of 32 bits, those of the mask."""

    field: Field
    mask: int


Part = Field | Random | Constant | Bits
Key = tuple[Part, ...]


class Equals(msgspec.Struct, frozen=True):
    """The field has this value."""

    field: Field
    value: int


class Masked(msgspec.Struct, frozen=True):
    """Of the field's bits, those of the mask have this value."""

    field: Field
    mask: int
    value: int


class HasAny(msgspec.Struct, frozen=True):
    """At least one of these bits is set in the field."""

    field: Field
    bits: int


class In(msgspec.Struct, frozen=True):
    """The key is an element of the set."""

    key: Key
    set: str


class NotIn(msgspec.Struct, frozen=True):
    """The key is no element of the set."""

    key: Key
    set: str


class Note(msgspec.Struct, frozen=True):
    """The kernel notes the key in the set or map, or that it was seen again. Holds unless that is full.

    Attributes:
        key: to note.
        set: where.
        data: what to put under the key, in a map; what is there already stays.
        seconds: after which the kernel forgets it; 0: as the set has it.
    """

    key: Key
    set: str
    data: Key = ()
    seconds: int = 0


class Erase(msgspec.Struct, frozen=True):
    """The kernel forgets the key in the set or map, if it is there. Holds always.

    Attributes:
        key: to forget.
        set: where.
        data: of a map, anything of the type that it has there; what it has does not matter.
    """

    key: Key
    set: str
    data: Key = ()


class Times(msgspec.Struct, frozen=True):
    """The connection is forgotten as this timeout says, if the kernel has none of it yet. Holds always."""

    timeout: str


class Over(msgspec.Struct, frozen=True):
    """The connection is counted under the key in the set, and is one too many of those that live.

    One that conntrack forgets is counted no more, nor one of TCP that is over, though it may remember that.

    Attributes:
        key: to count under.
        set: where.
        most: how many may live.
    """

    key: Key
    set: str
    most: int


class Tally(msgspec.Struct, frozen=True):
    """The counter of this name counts the packet. Holds always."""

    counter: str


Match = Equals | Masked | HasAny | In | NotIn | Note | Erase | Times | Over | Tally


class DnatBy(msgspec.Struct, frozen=True):
    """Rewrite the destination to what the map has under the key, and leave; no such key: go on.

    Attributes:
        key: to look up.
        map: where.
        address: the type of the address that it has there, before a port.
    """

    key: Key
    map: str
    address: Datatype


class SnatBy(msgspec.Struct, frozen=True):
    """Rewrite the source to the address that the map has under the key, and leave; no such key: go on.

    Attributes:
        key: to look up.
        map: where.
        address: the type of what it has there.
    """

    key: Key
    map: str
    address: Datatype


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


class Mark(msgspec.Struct, frozen=True):
    """Keep these bits of the packet's mark, put others beside them, and go on."""

    keep: int
    put: int


class Queue(msgspec.Struct, frozen=True):
    """Have the packet wait until somebody answers for it, and go on with the next hook.

    Where nobody reads the queue, it does not wait.

    Attributes:
        first: the number of the queue, or of the first one: the IPs of a packet say which has it.
        size: how many there are.
        as_target: in the words of iptables, for a kernel that has none of nftables' own.
    """

    first: int
    size: int
    as_target: bool = False


class Simple(enum.Enum):
    """A decision without arguments, as nft writes it."""

    ACCEPT = "accept"
    DROP = "drop"
    CONTINUE = ""
    MASQUERADE = "masquerade"
    MASQUERADE_AT_RANDOM = "masquerade fully-random"
    RESET = "reject with tcp reset"
    UNTRACKED = "notrack"
    UNREACHABLE = "reject"  # with icmpx port-unreachable, which nft does not spell out


Action = DnatBy | SnatBy | JumpBy | Jump | Goto | Mark | Queue | Simple


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
        ranges: whether the last field of an element is a range.
        fades: seconds after which the kernel forgets what a rule has put in it, unless the rule says
            otherwise; 0: it does not, or rules put nothing in it.
        most: if rules put elements in it: how many it holds at most; else 0.
    """

    name: str
    key: tuple[Datatype, ...]
    data: tuple[Datatype, ...] = ()
    to_chain: bool = False
    ranges: bool = False
    fades: int = 0
    most: int = 0


class Timeout(msgspec.Struct, frozen=True):
    """When conntrack forgets a connection of TCP that was reset; else it is as the system has it.

    Attributes:
        name: within the table.
        family: of the connection (NFPROTO_...).
        closed: after so many seconds.
    """

    name: str
    family: int
    closed: int


class Ruleset(msgspec.Struct, frozen=True):
    """The static part of a table of ours: of the one that stays, unless it has another name."""

    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    timeouts: tuple[Timeout, ...] = ()
    counters: tuple[str, ...] = ()
    table: str = TABLE
