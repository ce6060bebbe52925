"""The static part of our table as netlink messages."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.ruleset.language import TABLE, TCP, Datatype, length_of
from userproxy.netfilter.wire import netlink
from userproxy.netfilter.wire.expressions import ACCEPT, COUNTER, CT_TIMEOUT, Attributes, expressions_of
from userproxy.netfilter.wire.netlink import NFT_SUBSYSTEM, NFTABLES_HEADER, Message, attribute, string
from userproxy.netfilter.wire.packing import add_elements

if TYPE_CHECKING:
    from collections.abc import Collection

    from userproxy.netfilter.ruleset.language import Chain, Rule, Ruleset, Set, Timeout

_FAMILY_INET = 1
_HOOKS = {"prerouting": 0, "input": 1, "output": 3, "postrouting": 4}
_DATATYPE_VERDICT = 0xFFFFFF00  # NFT_DATA_VERDICT
_IN_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)
"""For nft alone (NFTNL_UDATA_SET_KEYBYTEORDER): or it would list names as empty, and marks turned around."""
_TYPE_BITS = 6  # by which nft shifts the types of a concatenation's fields into one number

# NFTA_SET_..., and in its description NFTA_SET_DESC_...
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH = 1, 2, 3, 4, 5
_SET_DATA_TYPE, _SET_DATA_LENGTH, _SET_DESCRIPTION, _SET_ID, _SET_TIMEOUT = 6, 7, 9, 10, 11
_SET_USERDATA = 13
_SIZE, _FIELDS = 1, 2
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4  # NFTA_OBJ_...
_TIMEOUT_FAMILY, _TIMEOUT_PROTOCOL, _TIMEOUT_DATA = 1, 2, 3  # NFTA_CT_TIMEOUT_...
_TIMEOUT_CLOSE = 8  # CTA_TIMEOUT_TCP_CLOSE
_INTERVAL, _MAP, _TIMEOUT, _EVALUATED, _CONCATENATION = 0x04, 0x08, 0x10, 0x20, 0x80  # NFT_SET_...


def table(flags: int = 0, name: str = TABLE) -> Message:
    """Create our table, or another one; no error if it is there.

    Args:
        flags: NFT_TABLE_F_...; with 0, one that is there keeps those that it has.
        name: its name.
    """
    attrs: Attributes = [("NFTA_TABLE_NAME", name)]
    if flags:
        attrs.append(("NFTA_TABLE_FLAGS", flags))
    return _message(nft.nft_table_msg, nft.NFT_MSG_NEWTABLE, attrs, what="table")


def delete_table(name: str = TABLE) -> Message:
    """Delete our table, or another one, with all that is in it; an error if it is not there."""
    return _message(
        nft.nft_table_msg, nft.NFT_MSG_DELTABLE, [("NFTA_TABLE_NAME", name)], create=False, what="table"
    )


def set_(spec: Set, identity: int, table_name: str = TABLE) -> Message:
    """Create a set or a map; `identity` differs from that of every other set in the batch."""
    flags = _MAP if spec.data or spec.to_chain else 0
    attrs = [
        (_SET_TABLE, string(table_name)),
        (_SET_NAME, string(spec.name)),
        (_SET_KEY_TYPE, _number(_concatenated(spec.key))),
        (_SET_KEY_LENGTH, _number(length_of(spec.key))),
        (_SET_ID, _number(identity)),
    ]
    if spec.data:
        attrs.append((_SET_DATA_TYPE, _number(_concatenated(spec.data))))
        attrs.append((_SET_DATA_LENGTH, _number(length_of(spec.data))))
    if spec.to_chain:
        attrs.append((_SET_DATA_TYPE, _number(_DATATYPE_VERDICT)))
    description = attribute(_SIZE, _number(spec.most)) if spec.most else b""
    if spec.ranges:
        flags |= _INTERVAL
    if spec.ranges and len(spec.key) > 1:
        flags |= _CONCATENATION
        lengths = b"".join(attribute(1, attribute(1, _number(each.size))) for each in spec.key)
        description += attribute(_FIELDS, lengths)
    if spec.most:
        flags |= _EVALUATED
    if spec.fades:
        flags |= _TIMEOUT
        attrs.append((_SET_TIMEOUT, struct.pack(">Q", spec.fades * 1000)))
    if spec.key in ((Datatype.IFNAME,), (Datatype.MARK,), (Datatype.UID,)):
        attrs.append((_SET_USERDATA, _IN_HOST_ORDER))
    if description:
        attrs.append((_SET_DESCRIPTION, description))
    if flags:
        attrs.append((_SET_FLAGS, _number(flags)))
    body = NFTABLES_HEADER + b"".join(attribute(kind, value) for kind, value in attrs)
    return Message(NFT_SUBSYSTEM | nft.NFT_MSG_NEWSET, netlink.NLM_F_CREATE, body, f"set {spec.name}")


def timeout(spec: Timeout) -> Message:
    """Create a timeout of conntrack."""
    data = (
        attribute(_TIMEOUT_FAMILY, struct.pack(">H", spec.family))
        + attribute(_TIMEOUT_PROTOCOL, bytes([TCP]))
        + attribute(_TIMEOUT_DATA, attribute(_TIMEOUT_CLOSE, _number(spec.closed)))
    )
    return _object(CT_TIMEOUT, spec.name, data, f"timeout {spec.name}")


def counter(name: str) -> Message:
    """Create a counter, which begins at 0; one that is there goes on."""
    return _object(COUNTER, name, b"", f"counter {name}")


def _object(kind: int, name: str, data: bytes, what: str) -> Message:
    attrs = (
        (_OBJECT_TABLE, string(TABLE)),
        (_OBJECT_NAME, string(name)),
        (_OBJECT_TYPE, _number(kind)),
        (_OBJECT_DATA, data),
    )
    body = NFTABLES_HEADER + b"".join(attribute(number, value) for number, value in attrs)
    return Message(NFT_SUBSYSTEM | nft.NFT_MSG_NEWOBJ, netlink.NLM_F_CREATE, body, what)


@functools.lru_cache(maxsize=256)
def chain(spec: Chain, table_name: str = TABLE) -> Message:
    """Create a chain; no error if it is there."""
    attrs: Attributes = [("NFTA_CHAIN_TABLE", table_name), ("NFTA_CHAIN_NAME", spec.name)]
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
            ("NFTA_CHAIN_POLICY", ACCEPT),
        ]
    return _message(nft.nft_chain_msg, nft.NFT_MSG_NEWCHAIN, attrs, what=f"chain {spec.name}")


@functools.lru_cache(maxsize=1024)  # or a verification would spend its time on encoding
def rule(chain_name: str, spec: Rule, table_name: str = TABLE) -> Message:
    """Append a rule to a chain."""
    expressions = expressions_of(spec)
    attrs: Attributes = [
        ("NFTA_RULE_TABLE", table_name),
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


def creation(spec: Ruleset, flags: int = 0) -> list[Message]:
    """Create what is static: the table, objects, sets, chains, rules, the elements of the constant set."""
    name = spec.table
    return [
        table(flags, name),
        *(timeout(each) for each in spec.timeouts),
        *map(counter, spec.counters),
        *(set_(each, identity, name) for identity, each in enumerate(spec.sets, start=1)),
        *chains(spec.chains, name),
        *(add_elements(constant_elements()) if name == TABLE else ()),
    ]


def chains(specs: Collection[Chain], table_name: str = TABLE) -> list[Message]:
    """Create chains, then their rules, which may lead from one to another."""
    return [
        *(chain(each, table_name) for each in specs),
        *(rule(each.name, line, table_name) for each in specs for line in each.rules),
    ]


def removal(specs: Collection[Chain]) -> list[Message]:
    """Delete chains of our table; first their rules, which may lead from one to another."""
    return [
        *(
            _message(
                nft.nft_rule_msg,
                nft.NFT_MSG_DELRULE,
                [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", each.name)],
                create=False,
                what=f"rules of {each.name}",
            )
            for each in specs
            if each.rules
        ),
        *(
            _message(
                nft.nft_chain_msg,
                nft.NFT_MSG_DELCHAIN,
                [("NFTA_CHAIN_TABLE", TABLE), ("NFTA_CHAIN_NAME", each.name)],
                create=False,
                what=f"chain {each.name}",
            )
            for each in specs
        ),
    ]


def request(kind: int, attrs: bytes = b"", what: str = "") -> Message:
    """A question to nftables about the inet family."""
    return Message(NFT_SUBSYSTEM | kind, 0, NFTABLES_HEADER + attrs, what)


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
    message["nfgen_family"] = _FAMILY_INET
    message["attrs"] = attrs
    message.encode()
    return Message(
        NFT_SUBSYSTEM | kind, flags | (netlink.NLM_F_CREATE if create else 0), bytes(message.data[16:]), what
    )


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _concatenated(types: tuple[Datatype, ...]) -> int:
    number = 0
    for datatype in types:
        number = number << _TYPE_BITS | datatype.number
    return number
