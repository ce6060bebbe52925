"""Messages as the kernel reads them, and what is noticed when it lists something else."""

from __future__ import annotations

import struct

import pytest

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, Target, ToListener, ToPods
from userproxy.netfilter.elements import elements_of
from userproxy.netfilter.ruleset import ruleset
from userproxy.netfilter.wire import encode, read_back
from userproxy.netfilter.wire.netlink import Message, attribute, attributes

FRONTEND = Frontend(Protocol.TCP, Address("10.3.241.152", 80))
BATCH = encode.creation(ruleset(frozenset({2})))
EXPECTED = read_back.created_by(BATCH)


def without(what: str) -> list[Message]:
    return [message for message in BATCH if message.what != what]


def test_attributes_are_padded_and_read_back() -> None:
    packed = attribute(1, b"abc") + attribute(0x8002, b"") + attribute(3, b"12345678")
    assert len(packed) % 4 == 0
    assert list(attributes(packed)) == [(1, b"abc"), (2, b""), (3, b"12345678")]


def test_a_cut_off_attribute_ends_the_list() -> None:
    assert list(attributes(b"\0\0\0\0\0\0\0\0")) == []


@pytest.mark.parametrize(
    "target", [ToListener(Address("10.100.0.2", 10400)), ToPods((Address("10.0.1.2", 8080),) * 3)]
)
def test_elements_are_read_as_they_were_sent(target: Target) -> None:
    elements = elements_of(FRONTEND, target)
    read = [
        element
        for message in encode.add_elements(elements)
        for element in read_back.decode_elements(message.what.split()[-1], [message.body])
    ]
    assert set(read) == set(elements)


def test_a_message_holds_at_most_64_kib_of_elements() -> None:
    pods = ToPods(tuple(Address(f"10.0.{index // 250}.{index % 250}", 8080) for index in range(2500)))
    messages = list(encode.add_elements(elements_of(FRONTEND, pods)))
    assert [message.what for message in messages].count("elements of pods4") == 3
    assert max(len(message.body) for message in messages) < 65536


def test_an_element_that_we_never_make_is_not_taken_for_ours() -> None:
    key = attribute(1, attribute(1, FRONTEND.address.ip.encode()[:12]))
    dropping = attribute(2, attribute(2, attribute(1, struct.pack(">i", 0))))
    expiring = attribute(4, bytes(8))
    for extra in (dropping, expiring):
        body = bytes(4) + attribute(3, attribute(1, key + extra))
        (element,) = read_back.decode_elements("sizes4", [body])
        assert "?" in element.chain


def test_what_we_created_is_intact() -> None:
    assert read_back.differences(EXPECTED, read_back.created_by(BATCH)) == []


def test_a_rule_that_is_missing_added_or_moved_is_noticed() -> None:
    rules = [message for message in BATCH if message.what.startswith("rule in guard-input")]
    for tampered in ([*BATCH, rules[0]], without(rules[0].what), [*without(rules[0].what), rules[0]]):
        found = read_back.differences(EXPECTED, read_back.created_by(tampered))
        assert found == ["the rules of chain guard-input were changed"]


def test_a_chain_or_set_that_is_missing_or_not_ours_is_noticed() -> None:
    fewer = read_back.created_by(
        message for message in BATCH if message.what not in ("set guarded4", "chain capture-output")
    )
    assert read_back.differences(EXPECTED, fewer) == [
        "set guarded4 is missing",
        "chain capture-output is missing",
    ]
    assert read_back.differences(fewer, EXPECTED) == [
        "set guarded4 is not ours",
        "chain capture-output is not ours",
    ]


def test_a_chain_on_another_priority_is_noticed() -> None:
    tampered = read_back.created_by(BATCH)
    hook = tampered.chains["deny-prerouting"][4]
    tampered.chains["deny-prerouting"][4] = hook.replace(struct.pack(">i", -110), struct.pack(">i", -90))
    assert read_back.differences(EXPECTED, tampered) == ["chain deny-prerouting was changed"]


def test_what_the_kernel_adds_to_its_listing_is_not_a_difference() -> None:
    listed = read_back.created_by(BATCH)
    for chain in listed.chains.values():
        chain[2] = bytes(8)  # a handle
    assert read_back.differences(EXPECTED, listed) == []


def test_other_tables_are_not_looked_at() -> None:
    foreign = bytes(4) + attribute(1, b"kube-proxy\0") + attribute(3, b"services\0")
    assert not read_back.static_of([(3, foreign)])
