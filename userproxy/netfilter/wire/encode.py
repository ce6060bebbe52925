"""The ruleset and its elements as netlink messages.

pyroute2's message classes encode the static part. Elements are packed by our own code: pyroute2
takes 470 ms for 10,000, this 30.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter.elements import protocol_elements
from userproxy.netfilter.ruleset import (
    TABLE,
    DnatBy,
    Equals,
    Field,
    Goto,
    HasAny,
    In,
    Jump,
    JumpBy,
    Note,
    Random,
    Simple,
)
from userproxy.netfilter.wire import netlink
from userproxy.netfilter.wire.netlink import Message, attribute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.netfilter.elements import Element
    from userproxy.netfilter.ruleset import Action, Chain, Datatype, Key, Match, Rule, Ruleset, Set

SUBSYSTEM = netlink.NFNL_SUBSYS_NFTABLES << 8
FAMILY_INET = 1
_MOST_NOTED = 65536  # elements, in a set that rules add to: more than there are Service ports on a node
ELEMENTS_A_MESSAGE = 1000  # an attribute, here the list of elements, ends at 64 KiB

_HOOKS = {"prerouting": 0, "input": 1, "output": 3, "postrouting": 4}
_REGISTER_BASE = 8  # NFT_REG32_00; registers of 4 bytes, 4 of which are one NFT_REG_1
_VERDICT_REGISTER = 0
JUMP, _GOTO, _ACCEPT, _DROP = -3, -4, 1, 0
_UPDATE = 1  # NFT_DYNSET_OP_UPDATE: add an element, or have its time begin anew
_DATATYPE_VERDICT = 0xFFFFFF00  # NFT_DATA_VERDICT
_TYPE_BITS = 6  # by which nft shifts the types of a concatenation's fields into one number

_LOADS: dict[Field, tuple[str, dict[str, int]]] = {
    Field.FAMILY: ("meta", {"NFTA_META_KEY": 15}),
    Field.PROTOCOL: ("meta", {"NFTA_META_KEY": 16}),
    Field.SOURCE: ("payload", {"NFTA_PAYLOAD_BASE": 1, "NFTA_PAYLOAD_OFFSET": 12, "NFTA_PAYLOAD_LEN": 4}),
    Field.DESTINATION: (
        "payload",
        {"NFTA_PAYLOAD_BASE": 1, "NFTA_PAYLOAD_OFFSET": 16, "NFTA_PAYLOAD_LEN": 4},
    ),
    Field.PORT: ("payload", {"NFTA_PAYLOAD_BASE": 2, "NFTA_PAYLOAD_OFFSET": 2, "NFTA_PAYLOAD_LEN": 2}),
    Field.STATE: ("ct", {"NFTA_CT_KEY": 0}),
    Field.STATUS: ("ct", {"NFTA_CT_KEY": 2}),
}
_DESTINATION_REGISTER = {"meta": "NFTA_META_DREG", "payload": "NFTA_PAYLOAD_DREG", "ct": "NFTA_CT_DREG"}

Attributes = list[tuple[str, Any]]


def table() -> Message:
    """Create our table; no error if it is there."""
    return _message(nft.nft_table_msg, nft.NFT_MSG_NEWTABLE, [("NFTA_TABLE_NAME", TABLE)], what="table")


def delete_table() -> Message:
    """Delete our table with all that is in it; an error if it is not there."""
    return _message(
        nft.nft_table_msg, nft.NFT_MSG_DELTABLE, [("NFTA_TABLE_NAME", TABLE)], create=False, what="table"
    )


def set_(spec: Set, identity: int) -> Message:
    """Create a set or a map; `identity` differs from that of every other set in the batch."""
    flags = set()
    attrs: Attributes = [
        ("NFTA_SET_TABLE", TABLE),
        ("NFTA_SET_NAME", spec.name),
        ("NFTA_SET_KEY_TYPE", _concatenated(spec.key)),
        ("NFTA_SET_KEY_LEN", spec.key[0].size if len(spec.key) == 1 else 4 * len(spec.key)),
        ("NFTA_SET_ID", identity),
    ]
    if spec.data:
        attrs.append(("NFTA_SET_DATA_TYPE", _concatenated(spec.data)))
        attrs.append(("NFTA_SET_DATA_LEN", 4 * len(spec.data)))
    if spec.to_chain:
        attrs.append(("NFTA_SET_DATA_TYPE", _DATATYPE_VERDICT))
    if spec.data or spec.to_chain:
        flags.add("NFT_SET_MAP")
    if spec.fades:
        flags |= {"NFT_SET_EVAL", "NFT_SET_TIMEOUT"}
        attrs.append(("NFTA_SET_TIMEOUT", spec.fades * 1000))
        attrs.append(("NFTA_SET_DESC", {"attrs": [("NFTA_SET_DESC_SIZE", _MOST_NOTED)]}))
    if flags:
        attrs.append(("NFTA_SET_FLAGS", flags))
    return _message(nft.nft_set_msg, nft.NFT_MSG_NEWSET, attrs, what=f"set {spec.name}")


def chain(spec: Chain) -> Message:
    """Create a chain; no error if it is there."""
    attrs: Attributes = [("NFTA_CHAIN_TABLE", TABLE), ("NFTA_CHAIN_NAME", spec.name)]
    if spec.hook is not None:
        hook = {
            "attrs": [
                ("NFTA_HOOK_HOOKNUM", _HOOKS[spec.hook.point]),
                ("NFTA_HOOK_PRIORITY", spec.hook.priority),
            ]
        }
        attrs += [
            ("NFTA_CHAIN_HOOK", hook),
            ("NFTA_CHAIN_TYPE", spec.hook.type),
            ("NFTA_CHAIN_POLICY", _ACCEPT),
        ]
    return _message(nft.nft_chain_msg, nft.NFT_MSG_NEWCHAIN, attrs, what=f"chain {spec.name}")


def rule(chain_name: str, spec: Rule) -> Message:
    """Append a rule to a chain."""
    expressions = [expression for match in spec.matches for expression in _match(match)] + _action(
        spec.action
    )
    attrs: Attributes = [
        ("NFTA_RULE_TABLE", TABLE),
        ("NFTA_RULE_CHAIN", chain_name),
        ("NFTA_RULE_EXPRESSIONS", [{"attrs": expression} for expression in expressions]),
    ]
    names = " ".join(str(expression[0][1]) for expression in expressions)
    return _message(
        nft.nft_rule_msg,
        nft.NFT_MSG_NEWRULE,
        attrs,
        flags=netlink.NLM_F_APPEND,
        what=f"rule in {chain_name} ({names})",
    )


def add_elements(elements: Sequence[Element]) -> Iterator[Message]:
    """Add elements; an error if one's key is there with something else under it."""
    return _element_messages(elements, nft.NFT_MSG_NEWSETELEM, netlink.NLM_F_CREATE, keys_only=False)


def delete_elements(elements: Sequence[Element]) -> Iterator[Message]:
    """Delete elements by their keys; an error if one is not there."""
    return _element_messages(elements, nft.NFT_MSG_DELSETELEM, 0, keys_only=True)


def creation(spec: Ruleset) -> list[Message]:
    """Create what is static: table, sets, chains, rules and the elements of the constant set."""
    return [
        table(),
        *(set_(each, identity) for identity, each in enumerate(spec.sets, start=1)),
        *(chain(each) for each in spec.chains),
        *(rule(each.name, line) for each in spec.chains for line in each.rules),
        *add_elements(protocol_elements()),
    ]


def request(kind: int, attrs: bytes = b"", what: str = "") -> Message:
    """A question to nftables about the inet family."""
    return Message(SUBSYSTEM | kind, 0, struct.pack(">BBH", FAMILY_INET, 0, 0) + attrs, what)


def string(text: str) -> bytes:
    """A name as netlink carries it."""
    return text.encode() + b"\0"


def _message(
    message_class: type[Any],
    kind: int,
    attrs: Attributes,
    *,
    create: bool = True,
    flags: int = 0,
    what: str = "",
) -> Message:
    # A message object is encoded once and thrown away: encoding one twice doubles it.
    message = message_class()
    message["nfgen_family"] = FAMILY_INET
    message["attrs"] = attrs
    message.encode()
    return Message(
        SUBSYSTEM | kind, flags | (netlink.NLM_F_CREATE if create else 0), bytes(message.data[16:]), what
    )


def _concatenated(types: tuple[Datatype, ...]) -> int:
    number = 0
    for datatype in types:
        number = number << _TYPE_BITS | datatype.number
    return number


def _register(slot: int) -> int:
    """A 4-byte register as the kernel itself names it: the 16-byte one if it is that one's beginning."""
    return slot // 4 + 1 if slot % 4 == 0 else _REGISTER_BASE + slot


def _expression(name: str, attrs: Attributes) -> Attributes:
    return [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": attrs})]


def _load(field: Field | Random, slot: int) -> Attributes:
    if isinstance(field, Random):
        return _expression(
            "numgen",
            [("NFTA_NG_DREG", _register(slot)), ("NFTA_NG_MODULUS", field.modulus), ("NFTA_NG_TYPE", 1)],
        )
    name, attrs = _LOADS[field]
    return _expression(name, [(_DESTINATION_REGISTER[name], _register(slot)), *attrs.items()])


def _load_key(key: Key) -> list[Attributes]:
    return [_load(field, slot) for slot, field in enumerate(key)]


def _lookup(set_name: str, destination: int | None = None) -> Attributes:
    attrs: Attributes = [("NFTA_LOOKUP_SET", set_name), ("NFTA_LOOKUP_SREG", _register(0))]
    if destination is not None:
        attrs.append(("NFTA_LOOKUP_DREG", destination))
    return _expression("lookup", attrs)


def _compare(operation: int, value: bytes) -> Attributes:
    data = {"attrs": [("NFTA_DATA_VALUE", value)]}
    return _expression(
        "cmp", [("NFTA_CMP_SREG", _register(0)), ("NFTA_CMP_OP", operation), ("NFTA_CMP_DATA", data)]
    )


def _match(match: Match) -> list[Attributes]:
    match match:
        case Equals(field, value):
            return [_load(field, 0), _compare(0, bytes([value]))]
        case HasAny(field, bits):
            mask = {"attrs": [("NFTA_DATA_VALUE", struct.pack("=I", bits))]}
            zero = {"attrs": [("NFTA_DATA_VALUE", bytes(4))]}
            masked = _expression(
                "bitwise",
                [
                    ("NFTA_BITWISE_SREG", _register(0)),
                    ("NFTA_BITWISE_DREG", _register(0)),
                    ("NFTA_BITWISE_LEN", 4),
                    ("NFTA_BITWISE_MASK", mask),
                    ("NFTA_BITWISE_XOR", zero),
                ],
            )
            return [_load(field, 0), masked, _compare(1, bytes(4))]
        case In(key, set_name):
            return [*_load_key(key), _lookup(set_name)]
        case Note(key, set_name):
            update: Attributes = [
                ("NFTA_DYNSET_SET_NAME", set_name),
                ("NFTA_DYNSET_OP", _UPDATE),
                ("NFTA_DYNSET_SREG_KEY", _register(0)),
            ]
            return [*_load_key(key), _expression("dynset", update)]


_DECISIONS: dict[Simple, tuple[str, Attributes]] = {
    Simple.MASQUERADE: ("masq", []),
    Simple.RESET: ("reject", [("NFTA_REJECT_TYPE", 1)]),
    Simple.UNREACHABLE: ("reject", [("NFTA_REJECT_TYPE", 2), ("NFTA_REJECT_ICMP_CODE", 1)]),
}


def _action(action: Action) -> list[Attributes]:
    match action:
        case DnatBy(key, map_name):
            rewrite: Attributes = [
                ("NFTA_NAT_TYPE", 1),
                ("NFTA_NAT_FAMILY", 2),
                ("NFTA_NAT_REG_ADDR_MIN", _register(0)),
                ("NFTA_NAT_REG_PROTO_MIN", _register(1)),
            ]
            return [*_load_key(key), _lookup(map_name, _register(0)), _expression("nat", rewrite)]
        case JumpBy(key, map_name):
            return [*_load_key(key), _lookup(map_name, _VERDICT_REGISTER)]
        case Jump(target) | Goto(target):
            return [_verdict(JUMP if isinstance(action, Jump) else _GOTO, target)]
        case Simple.ACCEPT | Simple.DROP:
            return [_verdict(_ACCEPT if action is Simple.ACCEPT else _DROP)]
        case Simple():
            return [_expression(*_DECISIONS[action])]


def _verdict(code: int, target: str = "") -> Attributes:
    attrs: Attributes = [("NFTA_VERDICT_CODE", code)]
    if target:
        attrs.append(("NFTA_VERDICT_CHAIN", target))
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attrs})]}
    return _expression(
        "immediate", [("NFTA_IMMEDIATE_DREG", _VERDICT_REGISTER), ("NFTA_IMMEDIATE_DATA", data)]
    )


def _element_messages(
    elements: Sequence[Element], kind: int, flags: int, *, keys_only: bool
) -> Iterator[Message]:
    by_set: dict[str, list[bytes]] = {}
    for element in elements:
        by_set.setdefault(element.set, []).append(_pack_element(element, keys_only=keys_only))
    for name, packed in by_set.items():
        head = (
            struct.pack(">BBH", FAMILY_INET, 0, 0) + attribute(1, string(TABLE)) + attribute(2, string(name))
        )
        for start in range(0, len(packed), ELEMENTS_A_MESSAGE):
            listed = attribute(3, b"".join(packed[start : start + ELEMENTS_A_MESSAGE]))
            yield Message(SUBSYSTEM | kind, flags, head + listed, f"elements of {name}")


def _pack_element(element: Element, *, keys_only: bool) -> bytes:
    """NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE }, NFTA_SET_ELEM_DATA { VALUE | VERDICT } }."""
    packed = attribute(1, attribute(1, element.key))
    if not keys_only and element.data:
        packed += attribute(2, attribute(1, element.data))
    if not keys_only and element.chain:
        verdict = attribute(1, struct.pack(">i", JUMP)) + attribute(2, string(element.chain))
        packed += attribute(2, attribute(2, verdict))
    return attribute(1, packed)
