"""The ruleset in the words of nft(8): as it would list it, and as it takes it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.netfilter.ruleset.language import (
    TABLE,
    Bits,
    Chain,
    Constant,
    Datatype,
    DnatBy,
    Equals,
    Erase,
    Field,
    Goto,
    HasAny,
    In,
    Jump,
    JumpBy,
    Key,
    Mark,
    Masked,
    Match,
    Note,
    NotIn,
    Over,
    Part,
    Queue,
    Random,
    Rule,
    Ruleset,
    Set,
    Simple,
    SnatBy,
    Tally,
    Timeout,
    Times,
)
from userproxy.netfilter.ruleset.sets import IPV4, IPV6, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PROTOCOLS = {6: "tcp", 17: "udp"}
_NOT_TAKEN = "# left out, as nft 1.0.6 crashes of it: "
_EXAMPLES = {
    Datatype.IPV4_ADDR: "ip daddr",
    Datatype.IPV6_ADDR: "ip6 daddr",
    Datatype.INET_PROTO: "meta l4proto",
    Datatype.INET_SERVICE: "th dport",
    Datatype.MARK: "numgen random mod 2",
}
"""By type, something that has it."""
_BITS = {
    Field.STATE: {0x01: "invalid", 0x02: "established", 0x04: "related", 0x08: "new"},
    Field.STATUS: {0x02: "seen-reply", 0x04: "assured", 0x08: "confirmed", 0x20: "dnat", 0x200: "dying"},
}
_DIRECTIONS = ("original", "reply")
_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack")
_NAMES = {IPV4.number: "ipv4", IPV6.number: "ipv6"}
_L3_NAMES = {IPV4.number: "ip", IPV6.number: "ip6"}
_DNATS = {IPV4.address: "dnat ip", IPV6.address: "dnat ip6"}
_SNATS = {IPV4.address: "snat ip", IPV6.address: "snat ip6"}
_FAMILIES = {Equals(Field.FAMILY, number) for number in _NAMES}
_IMPLY_FAMILY = {Field.SOURCE, Field.DESTINATION, Field.SOURCE6, Field.DESTINATION6}


def listed(ruleset: Ruleset) -> str:
    """As `nft list table` has it, without elements: to be read."""
    blocks = [*map(_set, ruleset.sets), *map(_chain, ruleset.chains)]
    return _table([*_objects(ruleset), *blocks], ruleset.table)


def loadable(ruleset: Ruleset, elements: Mapping[str, Sequence[str]]) -> str:
    """As `nft -f` takes it: it amounts to the same in the kernel, and reads a little longer.

    Rules that nft cannot take are in it as comments.

    Args:
        ruleset: the table.
        elements: by set, each as nft writes it.
    """
    sets = [_set(each, elements.get(each.name, ()), takes_numbers=True) for each in ruleset.sets]
    chains = [_chain(_with_protocols(each), in_full=False) for each in ruleset.chains]
    return _table([*_objects(ruleset), *sets, *chains])


def _table(blocks: Iterable[str], name: str = TABLE) -> str:
    return f"table inet {name} {{\n" + "\n\n".join(blocks) + "\n}\n"


def _objects(ruleset: Ruleset) -> Iterable[str]:
    """Counters first, as nft has it."""
    counters = (f"\tcounter {name} {{\n\t}}" for name in ruleset.counters)
    return (*counters, *map(_timeout, ruleset.timeouts))


def _timeout(spec: Timeout) -> str:
    policy = f"protocol tcp;\n\t\tl3proto {_L3_NAMES[spec.family]}\n\t\tpolicy = {{ close : {spec.closed} }}"
    return f"\tct timeout {spec.name} {{\n\t\t{policy}\n\t}}"


def _set(spec: Set, elements: Sequence[str] = (), *, takes_numbers: bool = False) -> str:
    """A set or map.

    Args:
        spec: what it is.
        elements: in it.
        takes_numbers: nft, which lists a plain number as a mark, takes it as one only if it is told so.
    """
    key = " . ".join(each.value[0] for each in spec.key)
    data = "verdict" if spec.to_chain else " . ".join(each.value[0] for each in spec.data)
    kind = "map" if data else "set"
    word = "type"
    if takes_numbers and Datatype.MARK in spec.key[1:]:
        word = "typeof"
        key, data = (" . ".join(_EXAMPLES[each] for each in types) for types in (spec.key, spec.data))
    more = "\n\t\tflags interval" if spec.ranges else ""
    if spec.most:
        more = f"\n\t\tsize {spec.most}\n\t\tflags dynamic"
    if spec.fades:
        more += f",timeout\n\t\ttimeout {spec.fades}s"
    if elements:
        more += "\n\t\telements = {\n" + "".join(f"\t\t\t{each},\n" for each in elements) + "\t\t}"
    return f"\t{kind} {spec.name} {{\n\t\t{word} {key}{' : ' if data else ''}{data}{more}\n\t}}"


def _with_protocols(chain: Chain) -> Chain:
    """The chain, with two rules for each that asks for the original port.

    nft does not know how long that is unless one protocol is named.
    """
    return msgspec.structs.replace(
        chain, rules=tuple(split for rule in chain.rules for split in _by_protocol(rule))
    )


def _by_protocol(rule: Rule) -> tuple[Rule, ...]:
    keys = [match.key for match in rule.matches if isinstance(match, In | NotIn | Note)]
    if isinstance(rule.action, DnatBy | JumpBy):
        keys.append(rule.action.key)
    if not any(Field.ORIGINAL_PORT in key for key in keys):
        return (rule,)
    any_of_ours = In((Field.PROTOCOL,), PROTOCOLS.name)
    return tuple(
        Rule(
            tuple(
                Equals(Field.PROTOCOL, number) if match == any_of_ours else match for match in rule.matches
            ),
            rule.action,
        )
        for number in _PROTOCOLS
    )


def _chain(chain: Chain, *, in_full: bool = True) -> str:
    lines = [
        rule(each) if in_full or _can_be_taken(each) else _NOT_TAKEN + rule(each) for each in chain.rules
    ]
    if chain.hook:
        hook = chain.hook
        lines.insert(0, f"type {hook.type} hook {hook.point} priority {hook.priority}; policy accept;")
    return f"\tchain {chain.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}"


def _can_be_taken(rule: Rule) -> bool:
    """False where nft 1.0.6 crashes: of a rule that puts an address of IPv6 with a port into a map."""
    return not any(
        isinstance(match, Note | Erase) and Field.DESTINATION6 in match.data for match in rule.matches
    )


def rule(spec: Rule) -> str:
    """One line. nft leaves out what a later `ip daddr` implies."""
    keys = [match.key for match in spec.matches if isinstance(match, In | NotIn | Over)]
    keys += [match.key + match.data for match in spec.matches if isinstance(match, Note | Erase)]
    if isinstance(spec.action, DnatBy | SnatBy | JumpBy):
        keys.append(spec.action.key)
    implied = any(_IMPLY_FAMILY.intersection(key) for key in keys)
    parts = [_match(match) for match in spec.matches if not (implied and match in _FAMILIES)]
    return " ".join([*parts, _action(spec)]).rstrip()


def _match(match: Match) -> str:
    match match:
        case Equals(Field.FAMILY, number):
            return f"meta nfproto {_NAMES[number]}"
        case Equals(Field.PORT, port):
            return f"udp dport {port}"
        case Equals(Field.DIRECTION, number):
            return f"{Field.DIRECTION.value} {_DIRECTIONS[number]}"
        case Equals(field, value):
            return f"{field.value} {_PROTOCOLS.get(value, value)}"
        case Masked() | HasAny():
            return _about_bits(match)
        case _:
            return _about_set(match)


def _about_bits(match: Masked | HasAny) -> str:
    match match:
        case Masked(Field.TCP_FLAGS, mask, value):
            return f"{Field.TCP_FLAGS.value} {_about_tcp_flags(mask, value)}"
        case Masked(Field.STATUS, mask, value):
            return f"{Field.STATUS.value} {_names(Field.STATUS, value)} / {_names(Field.STATUS, mask)}"
        case Masked(field, mask, value) if (mask & -mask) << mask.bit_count() != 1 << 32:
            return f"{field.value} & {mask:#010x} == {value:#010x}"
        case Masked(field, mask, value):
            return f"{field.value} {value:#010x}/{mask.bit_count()}"
        case HasAny(Field.MARK, bits):
            return f"{Field.MARK.value} & {bits:#010x} != 0x00000000"
        case HasAny(field, bits):
            return f"{field.value} {_names(field, bits)}"


def _names(field: Field, bits: int) -> str:
    return ",".join(name for bit, name in _BITS[field].items() if bits & bit)


def _about_tcp_flags(mask: int, value: int) -> str:
    """In the one way for each that nft both lists and takes."""
    if mask == value and mask.bit_count() == 1:
        return f"& {_tcp_flags(mask)} == {_tcp_flags(value)}"
    return f"{_tcp_flags(value)} / {_tcp_flags(mask)}"


def _tcp_flags(bits: int) -> str:
    return ",".join(name for place, name in enumerate(_TCP_FLAGS) if bits >> place & 1)


def _about_set(match: In | NotIn | Note | Erase | Over | Times | Tally) -> str:
    match match:
        case Times() | Tally():
            return _about_object(match)
        case Over(key, name, most):
            return f"add @{name} {{ {_key(key)} ct count over {most} }}"
        case In(key, name):
            return f"{_key(key)} {'== ' * isinstance(key[0], Constant)}@{name}"
        case NotIn(key, name):
            return f"{_key(key)} != @{name}"
        case Note(key, name, data, seconds):
            timeout = f" timeout {seconds}s" if seconds else ""
            return f"update @{name} {{ {_key(key)}{timeout}{' : ' if data else ''}{_key(data)} }}"
        case Erase(key, name, data):
            return f"delete @{name} {{ {_key(key)}{' : ' if data else ''}{_key(data)} }}"


def _about_object(match: Times | Tally) -> str:
    if isinstance(match, Times):
        return f'ct timeout set "{match.timeout}"'
    return f'counter name "{match.counter}"'


def _action(spec: Rule) -> str:
    match spec.action:
        case Mark(keep, put):
            beside = f" | {put:#010x}" if put else ""
            return f"meta mark set meta mark & {keep | put:#010x}{beside}"
        case Queue(first, size):
            return f"queue flags bypass to {first}" + (f"-{first + size - 1}" if size > 1 else "")
        case Simple() as simple:
            return simple.value
        case _:
            return _leads_on(spec.action)


def _leads_on(action: DnatBy | SnatBy | JumpBy | Jump | Goto) -> str:
    match action:
        case DnatBy(key, name, address):
            return f"{_DNATS[address]} to {_key(key)} map @{name}"
        case SnatBy(key, name, address):
            return f"{_SNATS[address]} to {_key(key)} map @{name}"
        case JumpBy(key, name):
            return f"{_key(key)} vmap @{name}"
        case Jump(chain):
            return f"jump {chain}"
        case Goto(chain):
            return f"goto {chain}"


def _key(key: Key) -> str:
    return " . ".join(map(_part, key))


def _part(part: Part) -> str:
    match part:
        case Random(modulus, offset):
            return f"numgen random mod {modulus}" + (f" offset {offset}" if offset else "")
        case Constant(value):
            return f"meta mark & {value:#010x} | {value:#010x}"
        case Bits(field, mask):
            return f"({field.value} & {mask:#010x})"
        case Field():
            return part.value
