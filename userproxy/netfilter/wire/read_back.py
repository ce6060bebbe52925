"""What the kernel holds of our table, read by dump, and how it differs from what it should be.

The kernel lists a rule with more attributes than it was given (defaults, handles). What we sent is intact
if each attribute that we sent is listed with the value that we sent, and nothing stands beside it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter.ruleset.language import TABLE
from userproxy.netfilter.ruleset.sets import SETS
from userproxy.netfilter.wire.encode import request
from userproxy.netfilter.wire.expressions import COUNTER
from userproxy.netfilter.wire.netlink import (
    Message,
    RefusedError,
    Socket,
    attribute,
    attributes,
    string,
)
from userproxy.netfilter.wire.unpacking import decode_elements, decode_pins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from userproxy.netfilter.elements.element import ClientPin, Element

Attributes = dict[int, bytes]

_TABLE_ATTRIBUTE = 1  # in chains, rules, sets and element lists alike
_NAME_ATTRIBUTE = {"chain": 3, "set": 2}
_RULE_CHAIN, _RULE_EXPRESSIONS, _SET_ID = 2, 4, 10
_GEN_ID = 1
_OBJECT_DATA, _COUNTER_PACKETS = 4, 2
_BY_RULES = {spec.name for spec in SETS if spec.most}


class Static(NamedTuple):
    """The static part of our table as the kernel lists it, or as a batch creates it.

    Attributes:
        sets: by name.
        chains: by name.
        rules: by chain, in order, each a list of expressions (name and attributes).
    """

    sets: dict[str, Attributes]
    chains: dict[str, Attributes]
    rules: dict[str, list[list[tuple[bytes, Attributes]]]]

    def __bool__(self) -> bool:
        return bool(self.sets or self.chains)


def generation(socket: Socket) -> int:
    """The generation of this namespace's whole ruleset: each commit, anyone's, adds one."""
    body = socket.get(request(nft.NFT_MSG_GETGEN, what="generation"))
    return int.from_bytes(dict(attributes(body, 4))[_GEN_ID], "big")


def read_static(socket: Socket) -> Static:
    """Sets, chains and rules of our table; empty if there is no table."""
    try:
        return static_of(_static_bodies(socket))
    except RefusedError as error:
        if error.refusal.errno == errno.ENOENT:
            return Static({}, {}, {})
        raise


def _static_bodies(socket: Socket) -> Iterator[tuple[int, bytes]]:
    ours = attribute(_TABLE_ATTRIBUTE, string(TABLE))
    questions = (
        (nft.NFT_MSG_NEWSET, nft.NFT_MSG_GETSET),
        (nft.NFT_MSG_NEWCHAIN, nft.NFT_MSG_GETCHAIN),
        (nft.NFT_MSG_NEWRULE, nft.NFT_MSG_GETRULE),
    )
    for kind, question in questions:
        for body in socket.dump(request(question, ours, "table")):
            yield kind, body


def read_elements(socket: Socket, set_names: Iterable[str], table: str = TABLE) -> Iterator[Element]:
    """The elements of these sets, which must exist."""
    for name in set_names:
        yield from decode_elements(name, _element_bodies(socket, name, table))


def read_pins(socket: Socket, map_names: Iterable[str]) -> Iterator[ClientPin]:
    """What rules have put in these maps, which must exist."""
    for name in map_names:
        yield from decode_pins(name, _element_bodies(socket, name))


def _element_bodies(socket: Socket, name: str, table: str = TABLE) -> list[bytes]:
    question = attribute(_TABLE_ATTRIBUTE, string(table)) + attribute(2, string(name))
    return socket.dump(request(nft.NFT_MSG_GETSETELEM, question, f"elements of {name}"))


def read_counter(socket: Socket, name: str) -> int:
    """How many packets a counter of ours has counted; 0 if it is not there."""
    ours = attribute(_TABLE_ATTRIBUTE, string(TABLE)) + attribute(2, string(name))
    question = ours + attribute(3, COUNTER.to_bytes(4, "big"))
    try:
        body = socket.get(request(nft.NFT_MSG_GETOBJ, question, f"counter {name}"))
    except RefusedError as error:
        if error.refusal.errno == errno.ENOENT:
            return 0
        raise
    data = dict(attributes(dict(attributes(body, 4))[_OBJECT_DATA]))
    return int.from_bytes(data[_COUNTER_PACKETS], "big")


def created_by(messages: Iterable[Message]) -> Static:
    """What a batch creates, in the same form."""
    return static_of((message.kind & 0xFF, message.body) for message in messages)


def static_of(bodies: Iterable[tuple[int, bytes]]) -> Static:
    """Sort messages by what they are about; those of other tables are left out."""
    static = Static({}, {}, {})
    for kind, body in bodies:
        found = dict(attributes(body, 4))
        if found.get(_TABLE_ATTRIBUTE) != string(TABLE):
            continue
        if kind == nft.NFT_MSG_NEWSET:
            found.pop(_SET_ID, None)  # means something only within the batch that creates the set
            static.sets[_name(found[_NAME_ATTRIBUTE["set"]])] = found
        elif kind == nft.NFT_MSG_NEWCHAIN:
            static.chains[_name(found[_NAME_ATTRIBUTE["chain"]])] = found
        elif kind == nft.NFT_MSG_NEWRULE:
            expressions = [_expression(packed) for _, packed in attributes(found.get(_RULE_EXPRESSIONS, b""))]
            static.rules.setdefault(_name(found[_RULE_CHAIN]), []).append(expressions)
    return static


def differences(expected: Static, actual: Static) -> list[str]:
    """What is missing, changed or added in `actual`, each in a few words; empty if nothing is."""
    found = []
    for what, wanted, seen in (
        ("set", expected.sets, actual.sets),
        ("chain", expected.chains, actual.chains),
    ):
        found += [f"{what} {name} is missing" for name in wanted if name not in seen]
        found += [f"{what} {name} is not ours" for name in seen if name not in wanted]
        found += [
            f"{what} {name} was changed"
            for name in wanted
            if name in seen and not _covers(seen[name], wanted[name])
        ]
    for name in expected.chains:
        wanted_rules, seen_rules = expected.rules.get(name, []), actual.rules.get(name, [])
        if name in actual.chains and not _same_rules(wanted_rules, seen_rules):
            found.append(f"the rules of chain {name} were changed")
    return found


def intact_sets(expected: Static, actual: Static, *, by_rules: bool = False) -> list[str]:
    """The names of the sets in `actual` that are as expected, so that their elements can be read as ours.

    Those that rules add to are left out, or with `by_rules` all the others.
    """
    return [
        name
        for name, wanted in expected.sets.items()
        if name in actual.sets and (name in _BY_RULES) is by_rules and _covers(actual.sets[name], wanted)
    ]


def _same_rules(
    wanted: list[list[tuple[bytes, Attributes]]], seen: list[list[tuple[bytes, Attributes]]]
) -> bool:
    return len(wanted) == len(seen) and all(
        len(mine) == len(theirs)
        and all(
            name == other and _covers(attrs, sent)
            for (name, sent), (other, attrs) in zip(mine, theirs, strict=True)
        )
        for mine, theirs in zip(wanted, seen, strict=True)
    )


def _covers(seen: Mapping[int, bytes], sent: Mapping[int, bytes]) -> bool:
    return all(seen.get(kind) == value for kind, value in sent.items())


def _expression(packed: bytes) -> tuple[bytes, Attributes]:
    found = dict(attributes(packed))
    return found[1], dict(attributes(found.get(2, b"")))


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
