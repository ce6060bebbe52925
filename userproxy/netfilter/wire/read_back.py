"""What the kernel holds of our table, read by dump, and how it differs from what it should be.

The kernel lists a rule with more attributes than it was given (defaults, handles). What we sent is intact
if each attribute that we sent is listed with the value that we sent, and nothing stands beside it.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

from pyroute2.netlink.nfnetlink import nftsocket as nft

from userproxy.netfilter.elements import Element
from userproxy.netfilter.ruleset import SETS, TABLE
from userproxy.netfilter.wire import encode
from userproxy.netfilter.wire.encode import request, string
from userproxy.netfilter.wire.netlink import Message, RefusedError, Socket, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Attributes = dict[int, bytes]

_TABLE_ATTRIBUTE = 1  # in chains, rules, sets and element lists alike
_NAME_ATTRIBUTE = {"chain": 3, "set": 2}
_RULE_CHAIN, _RULE_EXPRESSIONS, _SET_ID, _ELEMENTS = 2, 4, 10, 3
_GEN_ID = 1
_SPECS = {spec.name: spec for spec in SETS}


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


def read_elements(socket: Socket, set_names: Iterable[str]) -> Iterator[Element]:
    """The elements of these sets, which must exist."""
    for name in set_names:
        question = attribute(_TABLE_ATTRIBUTE, string(TABLE)) + attribute(2, string(name))
        bodies = socket.dump(request(nft.NFT_MSG_GETSETELEM, question, f"elements of {name}"))
        yield from decode_elements(name, bodies)


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


def intact_sets(expected: Static, actual: Static) -> list[str]:
    """The names of the sets in `actual` that are as expected, so that their elements can be read as ours.

    Those that rules add to are left out.
    """
    return [
        name
        for name, wanted in expected.sets.items()
        if name in actual.sets and not _SPECS[name].fades and _covers(actual.sets[name], wanted)
    ]


def decode_elements(set_name: str, bodies: Sequence[bytes]) -> Iterator[Element]:
    """The elements in the kernel's answers to a dump of one set."""
    plain = _Plain(set_name)
    for body in bodies:
        for kind, listed in attributes(body, 4):
            if kind == _ELEMENTS:
                for _, packed in attributes(listed):
                    yield plain.element(packed) or _element(set_name, packed)


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


class _Plain:
    """Reads elements that have a key, and what the set has under each, and nothing else: almost all do.

    They all look the same but for their key and data, so they are cut, not parsed; 10,000 are read at each
    adoption.
    """

    def __init__(self, set_name: str) -> None:
        self._set = set_name
        spec = _SPECS.get(set_name)
        key, data = (4 * len(spec.key), 4 * len(spec.data)) if spec else (0, 0)
        self._key_header = attribute(1, attribute(1, bytes(key)))[:8]
        self._data_header = attribute(2, attribute(1, bytes(data)))[:8] if data else b""
        self._key = slice(8, 8 + key)
        self._between = slice(8 + key, 8 + key + len(self._data_header))
        self._data = slice(8 + key + len(self._data_header), None)
        self._length = 8 + key + len(self._data_header) + data

    def element(self, packed: bytes) -> Element | None:
        """None if it must be parsed."""
        if (
            len(packed) == self._length
            and packed.startswith(self._key_header)
            and packed[self._between] == self._data_header
        ):
            return Element(self._set, packed[self._key], packed[self._data])
        return None


def _element(set_name: str, packed: bytes) -> Element:
    fields = dict(attributes(packed))
    data = dict(attributes(fields.get(2, b"")))
    # What we never put there (a drop, a timeout) is kept as a chain that is none of ours, so that it is
    # noticed. Sets that rules add to have timeouts, and are read for their keys alone.
    verdict = dict(attributes(data.get(2, b"")))
    jumps = verdict.get(1) == struct.pack(">i", encode.JUMP)
    chain = _name(verdict[2]) if jumps else "?" if verdict else ""
    if not set(fields) <= {1, 2}:
        chain += "?"
    return Element(set_name, dict(attributes(fields[1]))[1], data.get(1, b""), chain)


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
