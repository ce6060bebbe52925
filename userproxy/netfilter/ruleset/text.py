"""The ruleset as nft would list it, for people. Pure."""

from __future__ import annotations

from userproxy.netfilter.ruleset.language import (
    TABLE,
    Chain,
    Constant,
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
    Masked,
    Match,
    Note,
    NotIn,
    Part,
    Random,
    Rule,
    Ruleset,
    Set,
    Simple,
)
from userproxy.netfilter.ruleset.sets import IPV4, IPV6

_BITS = {
    Field.STATE: {0x01: "invalid", 0x02: "established", 0x04: "related", 0x08: "new"},
    Field.STATUS: {0x20: "dnat"},
}
_NAMES = {IPV4.number: "ipv4", IPV6.number: "ipv6"}
_DNATS = {IPV4.address: "dnat ip", IPV6.address: "dnat ip6"}
_FAMILIES = {Equals(Field.FAMILY, number) for number in _NAMES}
_IMPLY_FAMILY = {Field.SOURCE, Field.DESTINATION, Field.SOURCE6, Field.DESTINATION6}


def render(ruleset: Ruleset) -> str:
    """All of the table."""
    blocks = [_set(each) for each in ruleset.sets] + [_chain(each) for each in ruleset.chains]
    return f"table inet {TABLE} {{\n" + "\n\n".join(blocks) + "\n}\n"


def _set(spec: Set) -> str:
    key = " . ".join(each.value[0] for each in spec.key)
    data = "verdict" if spec.to_chain else " . ".join(each.value[0] for each in spec.data)
    kind = "map" if data else "set"
    more = "\n\t\tflags interval" if spec.ranges else ""
    if spec.fades:
        more = f"\n\t\tsize {spec.most}\n\t\tflags dynamic,timeout\n\t\ttimeout {spec.fades}s"
    return f"\t{kind} {spec.name} {{\n\t\ttype {key}{' : ' if data else ''}{data}{more}\n\t}}"


def _chain(chain: Chain) -> str:
    lines = [rule(each) for each in chain.rules]
    if chain.hook:
        hook = chain.hook
        lines.insert(0, f"type {hook.type} hook {hook.point} priority {hook.priority}; policy accept;")
    return f"\tchain {chain.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}"


def rule(spec: Rule) -> str:
    """One line. nft leaves out what a later `ip daddr` implies."""
    keys = [match.key for match in spec.matches if isinstance(match, In | NotIn | Note)]
    if isinstance(spec.action, DnatBy | JumpBy):
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
        case Equals(field, value):
            return f"{field.value} {({6: 'tcp', 17: 'udp'})[value]}"
        case Masked(field, mask, value):
            return f"{field.value} {value:#010x}/{mask.bit_count()}"
        case HasAny(field, bits):
            names = [name for bit, name in _BITS[field].items() if bits & bit]
            return f"{field.value} {','.join(names)}"
        case _:
            return _about_set(match)


def _about_set(match: In | NotIn | Note | Erase) -> str:
    match match:
        case In((Constant(),) as key, name):
            return f"{_key(key)} == @{name}"
        case In(key, name):
            return f"{_key(key)} @{name}"
        case NotIn(key, name):
            return f"{_key(key)} != @{name}"
        case Note(key, name, data, seconds):
            timeout = f" timeout {seconds}s" if seconds else ""
            return f"update @{name} {{ {_key(key)}{timeout}{' : ' if data else ''}{_key(data)} }}"
        case Erase(key, name):
            return f"delete @{name} {{ {_key(key)} }}"


def _action(spec: Rule) -> str:
    match spec.action:
        case DnatBy(key, name, address):
            return f"{_DNATS[address]} to {_key(key)} map @{name}"
        case JumpBy(key, name):
            return f"{_key(key)} vmap @{name}"
        case Jump(chain):
            return f"jump {chain}"
        case Goto(chain):
            return f"goto {chain}"
        case Simple() as simple:
            return simple.value


def _key(key: Key) -> str:
    return " . ".join(map(_part, key))


def _part(part: Part) -> str:
    match part:
        case Random(modulus):
            return f"numgen random mod {modulus}"
        case Constant(value):
            return f"meta mark & {value:#010x} | {value:#010x}"
        case Field():
            return part.value
