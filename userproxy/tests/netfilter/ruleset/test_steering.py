"""Packets to steered frontends: whoever is asked says in their marks where they go."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Perimeter, ToListener, ToPods
from userproxy.model.steering import MARK_BITS, OUTSIDE, chosen, refused
from userproxy.netfilter.elements.access import constant_elements
from userproxy.netfilter.elements.table import Elements, state_of
from userproxy.netfilter.ruleset.chains import STATE_ESTABLISHED, STATE_INVALID, STATE_RELATED, STATUS_DNAT
from userproxy.netfilter.ruleset.steering import STATUS_ASSURED, STATUS_DYING, STATUS_SEEN_REPLY
from userproxy.netfilter.ruleset.vacancy import STATUS_CONFIRMED
from userproxy.netfilter.trace.walk import Packet
from userproxy.tests.netfilter.ruleset.tracer import Kernel
from userproxy.tests.twins import twin

VIP, OTHER, EXTERNAL = (Address(f"10.3.0.{number}", 80) for number in (1, 2, 3))
PODS = tuple(Address(f"10.0.{number}.2", 8080) for number in (1, 2, 3))
LISTENER = Address("10.100.0.2", 10400)
TCP, UDP, ACK = 6, 17, 0x10
STATE = NodeState(
    captures={
        Frontend(Protocol.TCP, VIP): ToPods(PODS[:2], steered=True, others=PODS[2:]),
        Frontend(Protocol.UDP, VIP): ToPods(PODS[:2], steered=True, others=PODS[2:], affinity=60.0),
        Frontend(Protocol.TCP, OTHER): ToPods(PODS),
        Frontend(Protocol.TCP, EXTERNAL): ToPods(PODS, steered=True),
        Frontend(Protocol.TCP, EXTERNAL, outside=True): ToPods(PODS[:1], steered=True),
    },
    perimeter=Perimeter(uplinks=("eth0",)),
    queues=2,
)
FOREIGN = 0x0001C000
SYN = Packet(destination=VIP, device="cbr0", mark=FOREIGN | 0x2002)
CLIENT = Address("10.0.9.9", 40000)
REFUSAL = Packet(
    source=PODS[0].ip,
    source_port=PODS[0].port,
    destination=CLIENT,
    original=VIP,
    device="cbr0",
    flags=0x14,
    state=STATE_ESTABLISHED,
    status=STATUS_DNAT | STATUS_DYING,
    reply=True,
)
"""A pod's reset for an answer to a SYN: conntrack has deleted the entry."""
ERROR = replace(REFUSAL, error=True, state=STATE_RELATED, status=STATUS_DNAT)
HOOKS = ("prerouting", "output")


class Asked:
    """Whoever is asked, and the marks of the packets that he was asked for."""

    def __init__(self, index: int | None) -> None:
        self.index, self.marks = index, list[int]()

    def __call__(self, packet: Packet) -> Packet:
        """The packet with the answer in its mark."""
        self.marks.append(packet.mark)
        mark = refused(packet.mark) if self.index is None else chosen(packet.mark, self.index)
        return replace(packet, mark=mark)


def kernel(asked: Asked | None, state: NodeState = STATE) -> Kernel:
    made = Kernel(state)
    made.answer = asked
    return made


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_pod_that_was_chosen_gets_it_with_the_bits_of_others_alone(
    hook: str, protocol: int, index: int
) -> None:
    asked = Asked(index)
    verdict, sent = kernel(asked).send(replace(SYN, protocol=protocol), hook)
    assert (verdict, sent.destination, sent.mark) == ("accept", PODS[index], FOREIGN)
    assert asked.marks == [FOREIGN], "what others have left there would be a choice"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(("protocol", "verdict"), [(TCP, "reject with tcp reset"), (UDP, "reject")])
def test_the_choice_may_be_to_refuse(hook: str, protocol: int, verdict: str) -> None:
    assert kernel(Asked(None)).send(replace(SYN, protocol=protocol), hook)[0] == verdict


@pytest.mark.parametrize(
    ("hook", "packet", "verdict"),
    [
        ("prerouting", replace(SYN, device="eth0", source="10.100.0.9"), "reject with tcp reset"),
        ("prerouting", replace(SYN, device="eth0", source="10.0.9.9"), "accept"),
        ("prerouting", replace(SYN, destination=EXTERNAL, source="10.100.0.9"), "drop"),
        ("prerouting", replace(SYN, destination=EXTERNAL, source="10.0.9.9"), "accept"),
        ("output", replace(SYN, destination=EXTERNAL, source="10.100.0.2", device=""), "drop"),
        ("output", replace(SYN, destination=EXTERNAL, source="10.0.9.9", device=""), "accept"),
    ],
)
def test_nobody_is_asked_for_whom_the_rules_keep_out(hook: str, packet: Packet, verdict: str) -> None:
    inside = "10.0.0.0/14"
    state = replace(
        STATE,
        cluster_ips={VIP.ip: None},
        ranges={Frontend(Protocol.TCP, EXTERNAL): (inside, twin(inside))},
        perimeter=Perimeter(uplinks=("eth0",), inside=(inside, twin(inside))),
    )
    asked = Asked(0)
    assert kernel(asked, state).send(packet, hook)[0] == verdict
    assert len(asked.marks) == (verdict == "accept")


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    ("asked", "end"),
    [
        (None, ("accept", LISTENER, FOREIGN)),
        (Asked(0), ("accept", LISTENER, FOREIGN)),
        (Asked(None), ("reject with tcp reset", VIP, FOREIGN | 0x3FFF)),
    ],
    ids=["nobody is asked", "the kernel does not know the pod yet", "refused"],
)
def test_who_waits_for_endpoints_waits_at_the_listener_unless_he_is_refused(
    hook: str, asked: Asked | None, end: tuple[str, Address, int]
) -> None:
    captures = {Frontend(Protocol.TCP, VIP): ToListener(LISTENER, steered=True)}
    held = kernel(asked, NodeState(captures=captures, queues=2))
    verdict, sent = held.send(SYN, hook)
    assert (verdict, sent.destination, sent.mark) == end


@pytest.mark.parametrize("asked", [None, Asked(7)])
@pytest.mark.parametrize("hook", HOOKS)
def test_the_rules_choose_where_nobody_listens_or_the_choice_is_gone(hook: str, asked: Asked | None) -> None:
    verdict, sent = kernel(asked).send(SYN, hook)
    assert (verdict, sent.destination, sent.mark) == ("accept", PODS[0], FOREIGN)


@pytest.mark.parametrize("hook", HOOKS)
def test_nor_has_one_any_that_conntrack_calls_invalid_and_that_goes_on_as_it_came(hook: str) -> None:
    """Somebody is asked for a SYN before its checksum is looked at."""
    verdict, sent = kernel(Asked(1)).send(replace(SYN, state=STATE_INVALID), hook)
    assert (verdict, sent.destination, sent.mark) == ("accept", VIP, FOREIGN)


@pytest.mark.parametrize(
    "packet",
    [
        replace(SYN, flags=ACK, state=STATE_ESTABLISHED),
        replace(SYN, flags=0x12, state=STATE_ESTABLISHED),
        replace(SYN, protocol=UDP, status=STATUS_CONFIRMED),
        replace(SYN, protocol=UDP, state=STATE_ESTABLISHED),
        replace(SYN, destination=OTHER),
    ],
    ids=[
        "an established connection",
        "an answer",
        "a second datagram",
        "a flow",
        "a Service that is not steered",
    ],
)
def test_nobody_is_asked_for_what_begins_nothing_and_for_other_services(packet: Packet) -> None:
    asked = Asked(2)
    walked = kernel(asked)
    for hook in HOOKS:
        walked.send(packet, hook)
    assert asked.marks == []


def test_marks_of_others_are_no_choice_for_a_service_that_is_not_steered() -> None:
    _, sent = kernel(Asked(2)).send(replace(SYN, destination=OTHER), "prerouting")
    assert (sent.destination, sent.mark) == (PODS[0], SYN.mark)


def test_from_outside_it_is_another_frontend_and_the_mark_says_so() -> None:
    asked = Asked(0)
    inside = replace(SYN, destination=EXTERNAL)
    walked = kernel(asked)
    walked.send(inside, "prerouting")
    assert walked.send(replace(inside, device="eth0"), "prerouting")[1].destination == PODS[0]
    asked.index = 2
    assert walked.send(inside, "prerouting")[1].destination == PODS[2]
    assert walked.send(replace(inside, device="eth0"), "prerouting")[1].destination == PODS[0], (
        "none is there"
    )
    assert [mark & MARK_BITS for mark in asked.marks] == [0, OUTSIDE, 0, OUTSIDE]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_refusal_of_a_pod_is_withheld(hook: str) -> None:
    assert kernel(None).send(REFUSAL, hook)[0] == "drop"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "packet",
    [
        replace(REFUSAL, original=OTHER),
        replace(REFUSAL, status=STATUS_DNAT),
        replace(REFUSAL, status=STATUS_DNAT | STATUS_DYING | STATUS_ASSURED),
        replace(REFUSAL, reply=False, destination=PODS[0]),
        replace(REFUSAL, flags=0x12),
        replace(REFUSAL, flags=0x04),
        replace(REFUSAL, protocol=UDP),
        replace(REFUSAL, original=None),
    ],
    ids=[
        "of a Service that is not steered",
        "a reset that comes later",
        "of a connection that lived",
        "of the client",
        "an answer",
        "a reset for what conntrack had forgotten",
        "a datagram",
        "of nobody's Service",
    ],
)
def test_nothing_else_is_withheld(hook: str, packet: Packet) -> None:
    assert kernel(None).send(packet, hook)[0] == "accept"


@pytest.mark.parametrize("hook", HOOKS)
def test_nor_is_anybody_heard_who_says_that_a_pod_cannot_be_reached(hook: str) -> None:
    assert kernel(None).send(ERROR, hook)[0] == "drop"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "packet",
    [
        replace(ERROR, original=OTHER),
        replace(ERROR, status=STATUS_DNAT | STATUS_SEEN_REPLY),
        replace(ERROR, reply=False),
        replace(ERROR, protocol=UDP),
    ],
    ids=["of a Service that is not steered", "of a connection that lives", "of the client", "of a datagram"],
)
def test_no_other_error_is_withheld(hook: str, packet: Packet) -> None:
    assert kernel(None).send(packet, hook)[0] == "accept"


def test_without_queues_nobody_is_asked() -> None:
    asked = Asked(1)
    _, sent = kernel(asked, replace(STATE, queues=0)).send(SYN, "prerouting")
    assert (sent.destination, asked.marks) == (PODS[0], [])


def test_what_is_in_the_kernel_is_read_back() -> None:
    held = state_of({*Elements(STATE), *constant_elements()})
    assert (held.captures, held.queues) == (STATE.captures, STATE.queues)


def test_a_table_without_steered_frontends_has_no_chain_for_them() -> None:
    plain = replace(
        STATE,
        queues=0,
        captures={
            key: replace(to, steered=False) for key, to in STATE.captures.items() if isinstance(to, ToPods)
        },
    )
    assert not [
        name
        for name in Kernel(plain).chains
        if name.startswith(("ask-", "asked", "chosen", "settle", "queue", "withhold"))
    ]
