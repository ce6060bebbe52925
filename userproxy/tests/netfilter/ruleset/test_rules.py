"""The rules as a reviewer reads them, and what they do to a packet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, NodeState, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.ruleset.chains import STATE_ESTABLISHED, STATE_NEW, STATUS_DNAT, ruleset
from userproxy.netfilter.ruleset.language import Ruleset
from userproxy.netfilter.ruleset.made import Limit, Made, Pick, Pin, Relay, chains_made, parse
from userproxy.netfilter.ruleset.steering import Queue
from userproxy.netfilter.ruleset.text import listed
from userproxy.netfilter.trace.walk import Packet
from userproxy.tests.netfilter.ruleset.golden import GOLDEN
from userproxy.tests.netfilter.ruleset.golden_steered import GOLDEN_STEERED
from userproxy.tests.netfilter.ruleset.tracer import Kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

VIP = Address("10.3.241.152", 80)
LISTENER = Address("10.100.0.2", 10400)
PODS = (Address("10.0.1.2", 8080), Address("10.0.2.2", 8080), Address("10.0.2.3", 9090))
TCP_VIP, UDP_VIP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
GUARDS = (Frontend(Protocol.TCP, LISTENER), Frontend(Protocol.UDP, LISTENER))
RESET, UNREACHABLE = "reject with tcp reset", "reject"
HOOKS = ("prerouting", "output")
TCP, UDP, ICMP = 6, 17, 1


def kernel(captures: Mapping[Frontend, Target], draw: int = 0, guards: tuple[Frontend, ...] = ()) -> Kernel:
    return Kernel(NodeState(captures=captures, guards=dict.fromkeys(guards)), draw)


def test_the_rules_read_as_nft_lists_them() -> None:
    made: frozenset[Made] = frozenset(
        {
            Pick(3),
            Pick(3, sticky=True, outside=True),
            Pin(10_800, outside=True),
            Relay(2),
            Relay(1, outside=True),
            Limit(0, 3),
            Limit(9, 2),
            Limit(7, 0, steered=True),
        }
    )
    assert listed(ruleset(made)) == GOLDEN
    steered = chains_made({Queue(2)})
    assert listed(Ruleset((), steered)) == GOLDEN_STEERED
    assert ruleset(frozenset({Queue(2)})).chains[-len(steered) :] == steered
    assert chains_made({Queue(3)}, known={Queue(2)}) == (Queue(3).chain,), "the others are there"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    ("target", "verdict", "destination"),
    [
        (ToListener(LISTENER), "accept", LISTENER),
        (ToPods(PODS[:1]), "accept", PODS[0]),
        (Refuse(), RESET, VIP),
        (Drop(), "drop", VIP),
    ],
)
def test_a_packet_to_a_frontend_goes_where_its_target_says(
    hook: str, target: Target, verdict: str, destination: Address
) -> None:
    seen, packet = kernel({TCP_VIP: target}).send(Packet(destination=VIP), hook)
    assert (seen, packet.destination) == (verdict, destination)


@pytest.mark.parametrize("hook", HOOKS)
def test_udp_without_endpoints_is_refused_by_icmp(hook: str) -> None:
    assert kernel({UDP_VIP: Refuse()}).send(Packet(destination=VIP, protocol=UDP), hook)[0] == UNREACHABLE


@pytest.mark.parametrize(
    "packet",
    [
        Packet(destination=VIP, protocol=UDP),
        Packet(destination=VIP, protocol=ICMP),
        Packet(destination=Address(VIP.ip, 81)),
        Packet(destination=Address("10.3.241.153", 80)),
        Packet(source="fd00:1::3", destination=Address("fd00:3::1", 80)),
    ],
    ids=["another protocol", "no ports", "another port", "another address", "IPv6"],
)
@pytest.mark.parametrize("target", [ToListener(LISTENER), ToPods(PODS), Refuse(), Drop()])
def test_a_packet_that_is_not_to_the_frontend_is_left_alone(packet: Packet, target: Target) -> None:
    for hook in HOOKS:
        assert kernel({TCP_VIP: target}).send(packet, hook) == ("accept", packet)


@pytest.mark.parametrize("target", [Refuse(), Drop()])
def test_established_connections_outlive_the_last_endpoint(target: Target) -> None:
    packet = Packet(destination=VIP, state=STATE_ESTABLISHED, status=STATUS_DNAT)
    assert kernel({TCP_VIP: target}).send(packet, "prerouting")[0] == "accept"


def test_every_pod_can_be_drawn() -> None:
    drawn = [
        kernel({TCP_VIP: ToPods(PODS)}, draw=draw).send(Packet(destination=VIP), "prerouting")[1].destination
        for draw in range(3)
    ]
    assert drawn == list(PODS)


def test_a_pod_that_went_between_two_lookups_is_replaced_by_the_first() -> None:
    walked = kernel({TCP_VIP: ToPods(PODS)}, draw=2)
    last = VIP.ip, 2
    (gone,) = [key for key in walked.elements("pods") if key.endswith((last[1]).to_bytes(4, sys.byteorder))]
    del walked.elements("pods")[gone]
    assert walked.send(Packet(destination=VIP), "prerouting")[1].destination == PODS[0]


@pytest.mark.parametrize("target", [ToListener(LISTENER), Refuse(), ToPods(PODS)])
def test_a_packet_straight_to_a_listener_is_refused_wherever_its_service_leads(target: Target) -> None:
    walked = kernel({TCP_VIP: target}, guards=GUARDS)
    assert walked.send(Packet(destination=LISTENER), "prerouting", "input")[0] == RESET
    walked = kernel({UDP_VIP: target}, guards=GUARDS)
    assert walked.send(Packet(destination=LISTENER, protocol=UDP), "prerouting", "input")[0] == UNREACHABLE


@pytest.mark.parametrize("hook", HOOKS)
def test_a_translated_packet_passes_the_guard(hook: str) -> None:
    walked = kernel({TCP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    assert walked.send(Packet(destination=VIP), hook, "input")[0] == "accept"


def test_established_connections_pass_the_guard() -> None:
    walked = kernel({TCP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    assert walked.send(Packet(destination=LISTENER, state=STATE_ESTABLISHED), "input")[0] == "accept"


@pytest.mark.parametrize(
    ("protocol", "state", "verdict"),
    [(UDP, STATE_NEW, "drop"), (UDP, STATE_ESTABLISHED, "accept"), (TCP, STATE_NEW, "accept")],
)
def test_an_answer_that_nothing_would_translate_back_does_not_leave(
    protocol: int, state: int, verdict: str
) -> None:
    walked = kernel({UDP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    answer = Packet(
        source=LISTENER.ip,
        source_port=LISTENER.port,
        destination=Address("10.0.1.3", 40000),
        protocol=protocol,
        state=state,
    )
    assert walked.send(answer, "output")[0] == verdict
    other = Packet(source=LISTENER.ip, destination=Address("10.0.1.3", 53), protocol=protocol, state=state)
    assert walked.send(other, "output")[0] == "accept"


def test_other_ports_of_the_host_are_not_guarded() -> None:
    walked = kernel({TCP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    assert walked.send(Packet(destination=Address(LISTENER.ip, 22)), "input")[0] == "accept"


def test_only_a_pod_that_is_sent_to_itself_is_masqueraded() -> None:
    walked = kernel({TCP_VIP: ToPods(PODS[:1])})
    itself = Packet(source=PODS[0].ip, destination=VIP)
    assert walked.send(itself, "prerouting", "postrouting")[0] == "masquerade"
    assert walked.send(Packet(destination=VIP), "prerouting", "postrouting")[0] == "accept"
    untranslated = Packet(source=PODS[0].ip, destination=PODS[0])
    assert walked.send(untranslated, "postrouting")[0] == "accept"


def test_the_number_of_rules_does_not_grow_with_services() -> None:
    many = {Frontend(Protocol.TCP, Address(f"10.3.0.{host}", 80)): ToPods(PODS) for host in range(1, 250)}
    assert kernel(many).ruleset == kernel({TCP_VIP: ToPods(PODS)}).ruleset


@pytest.mark.parametrize(
    "name",
    [
        "pick-",
        "pick-0",
        "pick-03",
        "pick-x",
        "pick--1",
        "capture",
        "3",
        "pick-²",
        "sticky-pick-",
        "pin-for-0",
        "limit-0-each-0",
        "limit-05-each-1",
        "limit-5",
        "outside-limit-5-each-1",
    ],
)
def test_a_chain_of_another_name_is_not_taken_for_one_that_was_made(name: str) -> None:
    assert parse(name) is None


@pytest.mark.parametrize("outside", [False, True])
def test_a_chain_that_was_made_is_known_by_its_name(outside: bool) -> None:
    for made in (Pick(12, outside=outside), Pick(1, sticky=True, outside=outside), Pin(3, outside=outside)):
        assert parse(made.name) == made
    for limit in (Limit(5, 0), Limit(0, 5), Limit(10, 5), Limit(10, 5, steered=True)):
        assert parse(limit.name) == limit
