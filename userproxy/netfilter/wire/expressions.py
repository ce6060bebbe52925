"""Matches and actions as the expressions that the kernel runs.

A key is loaded into registers of 4 bytes ("slots"), each field from the next one on, and looked up from
there. What a map has under it takes its place.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from userproxy.netfilter.ruleset.language import (
    Action,
    Bits,
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
    Simple,
    SnatBy,
    Tally,
    Times,
)

Attributes = list[tuple[str, Any]]
JUMP, GOTO, ACCEPT, DROP = -3, -4, 1, 0
COUNTER, CT_TIMEOUT = 1, 7
"""NFT_OBJECT_COUNTER, NFT_OBJECT_CT_TIMEOUT"""

_REGISTER_BASE = 8  # NFT_REG32_00; registers of 4 bytes, 4 of which are one NFT_REG_1
_VERDICT_REGISTER = 0
_ADD = 0  # NFT_DYNSET_OP_ADD
_UPDATE = 1  # NFT_DYNSET_OP_UPDATE: add an element, or have its time begin anew
_DELETE = 2  # NFT_DYNSET_OP_DELETE, from 5.4 on
_INVERTED = "NFT_LOOKUP_F_INV"
_MORE = "NFT_LIMIT_F_INV"  # NFT_CONNLIMIT_F_INV, as pyroute2 calls it: holds when there are more
_FULLY_RANDOM = "NF_NAT_RANGE_PROTO_RANDOM_FULLY"
_ORIGINAL_DIRECTION = 0  # IP_CT_DIR_ORIGINAL

_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER


def _payload(base: int, offset: int, size: int) -> tuple[str, dict[str, int]]:
    """Bytes of a header."""
    return "payload", {
        "NFTA_PAYLOAD_BASE": base,
        "NFTA_PAYLOAD_OFFSET": offset,
        "NFTA_PAYLOAD_LEN": size,
    }


_LOADS: dict[Field, tuple[str, dict[str, int]]] = {
    Field.FAMILY: ("meta", {"NFTA_META_KEY": 15}),
    Field.PROTOCOL: ("meta", {"NFTA_META_KEY": 16}),
    Field.MARK: ("meta", {"NFTA_META_KEY": 3}),
    Field.DEVICE: ("meta", {"NFTA_META_KEY": 6}),
    Field.USER: ("meta", {"NFTA_META_KEY": 10}),
    Field.SOURCE: _payload(_NETWORK, 12, 4),
    Field.SOURCE6: _payload(_NETWORK, 8, 16),
    Field.DESTINATION: _payload(_NETWORK, 16, 4),
    Field.DESTINATION6: _payload(_NETWORK, 24, 16),
    Field.PORT: _payload(_TRANSPORT, 2, 2),
    Field.SOURCE_PORT: _payload(_TRANSPORT, 0, 2),
    Field.ORIGINAL_DESTINATION: ("ct", {"NFTA_CT_KEY": 20, "NFTA_CT_DIRECTION": _ORIGINAL_DIRECTION}),
    Field.ORIGINAL_DESTINATION6: ("ct", {"NFTA_CT_KEY": 22, "NFTA_CT_DIRECTION": _ORIGINAL_DIRECTION}),
    Field.ORIGINAL_PORT: ("ct", {"NFTA_CT_KEY": 12, "NFTA_CT_DIRECTION": _ORIGINAL_DIRECTION}),
    Field.ORIGINAL_SOURCE_PORT: ("ct", {"NFTA_CT_KEY": 11, "NFTA_CT_DIRECTION": _ORIGINAL_DIRECTION}),
    Field.CONNECTION: ("ct", {"NFTA_CT_KEY": 23}),
    Field.CONNECTION_PROTOCOL: ("ct", {"NFTA_CT_KEY": 10}),
    Field.DIRECTION: ("ct", {"NFTA_CT_KEY": 1}),
    Field.TCP_FLAGS: _payload(_TRANSPORT, 13, 1),
    Field.STATE: ("ct", {"NFTA_CT_KEY": 0}),
    Field.STATUS: ("ct", {"NFTA_CT_KEY": 2}),
    Field.TRANSPARENT: ("socket", {"NFTA_SOCKET_KEY": 0}),
}
_SLOTS = {
    Field.DEVICE: 4,
    Field.SOURCE6: 4,
    Field.DESTINATION6: 4,
    Field.ORIGINAL_DESTINATION6: 4,
}  # of all others: 1
_BYTES = {Field.PORT: 2, Field.SOURCE_PORT: 2}  # of what `Equals` compares; of all others: 1
_MASKED_BYTES = {Field.TCP_FLAGS: 1}  # of what `Masked` compares; of all others: 4
_TARGET, _TARGET_REVISION, _TARGET_INFO = "NFQUEUE", 3, struct.Struct("=HHHxx")  # xt_NFQ_info_v3, aligned
_TARGET_BYPASS = 0x01  # NFQ_FLAG_BYPASS
_QUEUE_BYPASS = 0x01  # NFT_QUEUE_FLAG_BYPASS; pyroute2 cannot pack the name
_NAT_FAMILIES = {Datatype.IPV4_ADDR: 2, Datatype.IPV6_ADDR: 10}  # NFPROTO_...
_DESTINATION_REGISTER = {
    "meta": "NFTA_META_DREG",
    "payload": "NFTA_PAYLOAD_DREG",
    "ct": "NFTA_CT_DREG",
    "socket": "NFTA_SOCKET_DREG",
}


def expressions_of(rule: Rule) -> list[Attributes]:
    """What the kernel runs for a rule, in order."""
    return [expression for match in rule.matches for expression in _match(match)] + _action(rule.action)


def _expression(name: str, attrs: Attributes) -> Attributes:
    return [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": attrs})]


def _register(slot: int) -> int:
    """A 4-byte register as the kernel itself names it: the 16-byte one if it is that one's beginning."""
    return slot // 4 + 1 if slot % 4 == 0 else _REGISTER_BASE + slot


def _slots(*parts: Part) -> int:
    return sum(_SLOTS.get(part, 1) if isinstance(part, Field) else 1 for part in parts)


def _load(part: Part, slot: int) -> list[Attributes]:
    match part:
        case Random(modulus, offset):
            numgen: Attributes = [
                ("NFTA_NG_DREG", _register(slot)),
                ("NFTA_NG_MODULUS", modulus),
                ("NFTA_NG_TYPE", 1),
            ]
            if offset:
                numgen.append(("NFTA_NG_OFFSET", offset))
            return [_expression("numgen", numgen)]
        case Constant(value):
            return [*_load(Field.MARK, slot), _bits(slot, 0, value)]
        case Bits(field, mask):
            return [*_load(field, slot), _bits(slot, mask)]
        case Field():
            name, attrs = _LOADS[part]
            return [_expression(name, [(_DESTINATION_REGISTER[name], _register(slot)), *attrs.items()])]


def _load_key(key: Key) -> list[Attributes]:
    return [each for index, part in enumerate(key) for each in _load(part, _slots(*key[:index]))]


def _bits(slot: int, mask: int, flip: int = 0, size: int = 4) -> Attributes:
    """Of what is in the slot, so many bytes, keep the bits of the mask, and flip others."""
    mask_data, flip_data = (
        {"attrs": [("NFTA_DATA_VALUE", each.to_bytes(size, sys.byteorder))]} for each in (mask, flip)
    )
    return _expression(
        "bitwise",
        [
            ("NFTA_BITWISE_SREG", _register(slot)),
            ("NFTA_BITWISE_DREG", _register(slot)),
            ("NFTA_BITWISE_LEN", size),
            ("NFTA_BITWISE_MASK", mask_data),
            ("NFTA_BITWISE_XOR", flip_data),
        ],
    )


def _lookup(set_name: str, destination: int | None = None, *, inverted: bool = False) -> Attributes:
    attrs: Attributes = [
        ("NFTA_LOOKUP_SET", set_name),
        ("NFTA_LOOKUP_SREG", _register(0)),
        ("NFTA_LOOKUP_FLAGS", {_INVERTED} if inverted else set()),
    ]
    if destination is not None:
        attrs.append(("NFTA_LOOKUP_DREG", destination))
    return _expression("lookup", attrs)


def _compare(operation: int, value: bytes) -> Attributes:
    data = {"attrs": [("NFTA_DATA_VALUE", value)]}
    return _expression(
        "cmp", [("NFTA_CMP_SREG", _register(0)), ("NFTA_CMP_OP", operation), ("NFTA_CMP_DATA", data)]
    )


def _note(note: Note | Erase) -> list[Attributes]:
    behind = _slots(*note.key)
    attrs = _dynset(note.set, _UPDATE if isinstance(note, Note) else _DELETE)
    if note.data:
        attrs.append(("NFTA_DYNSET_SREG_DATA", _register(behind)))
    if isinstance(note, Note) and note.seconds:
        attrs.append(("NFTA_DYNSET_TIMEOUT", note.seconds * 1000))
    return [*_load_key((*note.key, *note.data)), _expression("dynset", attrs)]


def _dynset(name: str, operation: int) -> Attributes:
    return [
        ("NFTA_DYNSET_SET_NAME", name),
        ("NFTA_DYNSET_OP", operation),
        ("NFTA_DYNSET_SREG_KEY", _register(0)),
    ]


def _over(over: Over) -> list[Attributes]:
    count = _expression("connlimit", [("NFTA_CONNLIMIT_COUNT", over.most), ("NFTA_CONNLIMIT_FLAGS", {_MORE})])
    attrs = [*_dynset(over.set, _ADD), ("NFTA_DYNSET_EXPR", {"attrs": count})]
    return [*_load_key(over.key), _expression("dynset", attrs)]


def _object(kind: int, name: str) -> Attributes:
    return _expression("objref", [("NFTA_OBJREF_IMM_TYPE", kind), ("NFTA_OBJREF_IMM_NAME", name)])


def _match(match: Match) -> list[Attributes]:
    match match:
        case Equals(field, value):
            return [*_load(field, 0), _compare(0, value.to_bytes(_BYTES.get(field, 1), "big"))]
        case Masked(field, mask, value):
            size = _MASKED_BYTES.get(field, 4)
            wanted = value.to_bytes(size, sys.byteorder)
            return [*_load(field, 0), _bits(0, mask, size=size), _compare(0, wanted)]
        case HasAny(field, bits):
            return [*_load(field, 0), _bits(0, bits), _compare(1, bytes(4))]
        case _:
            return _about_set(match)


def _about_set(match: In | NotIn | Note | Erase | Over | Times | Tally) -> list[Attributes]:
    match match:
        case In(key, set_name) | NotIn(key, set_name):
            return [*_load_key(key), _lookup(set_name, inverted=isinstance(match, NotIn))]
        case Note() | Erase():
            return _note(match)
        case Over():
            return _over(match)
        case Times(name):
            return [_object(CT_TIMEOUT, name)]
        case Tally(name):
            return [_object(COUNTER, name)]


_SET_MARK: Attributes = [("NFTA_META_KEY", 3), ("NFTA_META_SREG", _register(0))]
_VERDICTS = {Simple.ACCEPT: ACCEPT, Simple.DROP: DROP}
_DECISIONS: dict[Simple, tuple[str, Attributes]] = {
    Simple.MASQUERADE: ("masq", []),
    Simple.MASQUERADE_AT_RANDOM: ("masq", [("NFTA_MASQ_FLAGS", {_FULLY_RANDOM})]),
    Simple.RESET: ("reject", [("NFTA_REJECT_TYPE", 1)]),
    Simple.UNREACHABLE: ("reject", [("NFTA_REJECT_TYPE", 2), ("NFTA_REJECT_ICMP_CODE", 1)]),
}


def _action(action: Action) -> list[Attributes]:
    match action:
        case DnatBy(key, map_name, address):
            return [*_load_key(key), _lookup(map_name, _register(0)), _dnat(address)]
        case SnatBy(key, map_name, address):
            return [*_load_key(key), _lookup(map_name, _register(0)), _snat(address)]
        case JumpBy(key, map_name):
            return [*_load_key(key), _lookup(map_name, _VERDICT_REGISTER)]
        case Jump(target) | Goto(target):
            return [_verdict(JUMP if isinstance(action, Jump) else GOTO, target)]
        case Mark(keep, put):
            return [*_load(Field.MARK, 0), _bits(0, keep, put), _expression("meta", _SET_MARK)]
        case Queue() | Simple():
            return _decision(action)


def _decision(action: Queue | Simple) -> list[Attributes]:
    if isinstance(action, Queue):
        return [_queue(action)]
    if action is Simple.CONTINUE:
        return []
    if action in _VERDICTS:
        return [_verdict(_VERDICTS[action])]
    if action is Simple.UNTRACKED:
        return [[("NFTA_EXPR_NAME", "notrack")]]  # it takes no attributes
    return [_expression(*_DECISIONS[action])]


def _queue(queue: Queue) -> Attributes:
    """Have it wait, or go on at once if nobody listens."""
    if queue.as_target:
        info = _TARGET_INFO.pack(queue.first, queue.size, _TARGET_BYPASS)
        target: Attributes = [
            ("NFTA_TARGET_NAME", _TARGET),
            ("NFTA_TARGET_REV", _TARGET_REVISION),
            ("NFTA_TARGET_INFO", info),
        ]
        return _expression("target", target)
    waits: Attributes = [
        ("NFTA_QUEUE_NUM", queue.first),
        ("NFTA_QUEUE_TOTAL", queue.size),
        ("NFTA_QUEUE_FLAGS", _QUEUE_BYPASS),
    ]
    return _expression("queue", waits)


def _dnat(address: Datatype) -> Attributes:
    """Rewrite the destination to the address in the first slots, and the port in the one behind it."""
    rewrite: Attributes = [
        ("NFTA_NAT_TYPE", 1),
        ("NFTA_NAT_FAMILY", _NAT_FAMILIES[address]),
        ("NFTA_NAT_REG_ADDR_MIN", _register(0)),
        ("NFTA_NAT_REG_PROTO_MIN", _register(address.size // 4)),
    ]
    return _expression("nat", rewrite)


def _snat(address: Datatype) -> Attributes:
    """Rewrite the source to the address in the first slots."""
    rewrite: Attributes = [
        ("NFTA_NAT_TYPE", 0),
        ("NFTA_NAT_FAMILY", _NAT_FAMILIES[address]),
        ("NFTA_NAT_REG_ADDR_MIN", _register(0)),
    ]
    return _expression("nat", rewrite)


def _verdict(code: int, target: str = "") -> Attributes:
    attrs: Attributes = [("NFTA_VERDICT_CODE", code)]
    if target:
        attrs.append(("NFTA_VERDICT_CHAIN", target))
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attrs})]}
    return _expression(
        "immediate", [("NFTA_IMMEDIATE_DREG", _VERDICT_REGISTER), ("NFTA_IMMEDIATE_DATA", data)]
    )
