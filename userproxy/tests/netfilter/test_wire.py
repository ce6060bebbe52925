"""Messages as the kernel reads them, and what is noticed when it lists something else."""

from __future__ import annotations

import struct

import pytest

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, Perimeter, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.elements.access import perimeter_elements, range_elements
from userproxy.netfilter.elements.captures import comments_of, elements_of
from userproxy.netfilter.elements.element import ClientPin, Element
from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.made import Pick
from userproxy.netfilter.wire import encode, packing, read_back, unpacking
from userproxy.netfilter.wire.netlink import Message, attribute, attributes

FRONTEND = Frontend(Protocol.TCP, Address("10.3.241.152", 80))
BATCH = encode.creation(ruleset(frozenset({Pick(2)})))
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
        for message in packing.add_elements(elements)
        for element in unpacking.decode_elements(message.what.split()[-1], [message.body])
    ]
    assert set(read) == set(elements)


@pytest.mark.parametrize("name", ["a/b:c", "default/server-service:http", "x" * 300])
@pytest.mark.parametrize(
    "target",
    [
        ToListener(Address("10.100.0.2", 10400), ToPods((Address("10.0.1.2", 8080),), masquerade=True)),
        Refuse(),
    ],
)
def test_elements_with_the_name_of_a_service_are_read_as_they_were_sent(target: Target, name: str) -> None:
    elements = elements_of(FRONTEND, target)
    messages = list(packing.add_elements(elements, comments_of({FRONTEND: name})))
    assert sum(message.body.count(name.encode()[:127] + b"\0") for message in messages) >= 1
    read = [
        element
        for message in messages
        for element in unpacking.decode_elements(message.what.split()[-1], [message.body])
    ]
    assert set(read) == set(elements)


def test_a_message_holds_at_most_64_kib_of_elements() -> None:
    pods = ToPods(tuple(Address(f"10.0.{index // 250}.{index % 250}", 8080) for index in range(2500)))
    many: list[Element] = [*elements_of(FRONTEND, pods)]
    for number in range(2500):
        address = Address(f"10.3.{number // 250}.{number % 250}", 80)
        many += elements_of(
            Frontend(Protocol.TCP, address, outside=True), ToPods(pods.pods[:1], affinity=10_800)
        )
    messages = list(packing.add_elements(many))
    assert [message.what for message in messages].count("elements of outside-members4") > 1
    assert max(len(message.body) for message in messages) < 65536
    read = [
        element
        for message in messages
        for element in unpacking.decode_elements(message.what.split()[-1], [message.body])
    ]
    assert set(read) == set(many)


def test_an_element_that_we_never_make_is_not_taken_for_ours() -> None:
    key = attribute(1, attribute(1, FRONTEND.address.ip.encode()[:12]))
    dropping = attribute(2, attribute(2, attribute(1, struct.pack(">i", 0))))
    expiring = attribute(4, bytes(8))
    for extra in (dropping, expiring):
        body = bytes(4) + attribute(3, attribute(1, key + extra))
        (element,) = unpacking.decode_elements("sizes4", [body])
        assert "?" in element.chain


PERIMETER = perimeter_elements(
    Perimeter(uplinks=("eth0", "wlan0"), inside=("10.0.0.0/14", "10.4.0.0/16", "192.0.2.0/24"))
)
EVERYTHING_INSIDE = perimeter_elements(Perimeter(inside=("0.0.0.0/0",)))
CLIENTS = range_elements(FRONTEND, ("10.0.0.0/14", "192.0.2.7/32", "255.255.255.255/32"))


def test_ranges_are_read_as_they_were_sent() -> None:
    for sent in (PERIMETER, EVERYTHING_INSIDE, CLIENTS):
        for name in {element.set for element in sent}:
            of_set = [element for element in sent if element.set == name]
            bodies = [message.body for message in packing.add_elements(of_set)]
            assert set(unpacking.decode_elements(name, bodies)) == set(of_set), name


def test_a_range_without_a_beginning_is_not_taken_for_ours() -> None:
    (message,) = packing.add_elements([Element("inside4", bytes([10, 0, 0, 0]), last=bytes([10, 0, 0, 9]))])
    (listed,) = (value for kind, value in attributes(message.body, 4) if kind == 3)
    end = [attribute(1, packed) for _, packed in attributes(listed)][1]
    (element,) = unpacking.decode_elements("inside4", [bytes(4) + attribute(3, end)])
    assert "?" in element.chain


def test_a_pin_is_read_as_it_was_sent() -> None:
    pin = ClientPin("affinity4", bytes(range(16)), bytes(range(8)), timeout=10_800_000, left=42_000)
    (message,) = packing.add_pins([pin])
    assert list(unpacking.decode_pins("affinity4", [message.body])) == [pin]


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
