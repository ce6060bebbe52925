"""The rules as a reviewer reads them, and what they do to a packet."""

from __future__ import annotations

import sys

import pytest

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.ruleset import STATE_ESTABLISHED, STATUS_DNAT, pick_name, pick_size, ruleset
from userproxy.tests.netfilter.rendering import render
from userproxy.tests.netfilter.tracer import Kernel, Packet

GOLDEN = """\
table inet userproxy {
	set protocols {
		type inet_proto
	}

	set refused4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set dropped4 {
		type ipv4_addr . inet_proto . inet_service
	}

	map listeners4 {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}

	map sizes4 {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	map pods4 {
		type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
	}

	set guarded4 {
		type ipv4_addr . inet_proto . inet_service
	}

	set hairpins4 {
		type ipv4_addr . ipv4_addr
	}

	set used4 {
		type ipv4_addr . inet_proto . inet_service
		flags dynamic,timeout
		timeout 60s
	}

	chain refuse {
		meta l4proto tcp reject with tcp reset
		reject
	}

	chain deny {
		meta l4proto @protocols ip daddr . meta l4proto . th dport @refused4 goto refuse
		meta l4proto @protocols ip daddr . meta l4proto . th dport @dropped4 drop
	}

	chain capture {
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport map @listeners4
		meta l4proto @protocols ip daddr . meta l4proto . th dport vmap @sizes4
		meta l4proto @protocols dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @pods4
	}

	chain deny-prerouting {
		type filter hook prerouting priority -110; policy accept;
		ct state new meta nfproto ipv4 meta l4proto @protocols jump deny
	}

	chain deny-output {
		type filter hook output priority -110; policy accept;
		ct state new meta nfproto ipv4 meta l4proto @protocols jump deny
	}

	chain capture-prerouting {
		type nat hook prerouting priority -100; policy accept;
		meta nfproto ipv4 meta l4proto @protocols jump capture
	}

	chain capture-output {
		type nat hook output priority -100; policy accept;
		meta nfproto ipv4 meta l4proto @protocols jump capture
	}

	chain guard-input {
		type filter hook input priority 0; policy accept;
		ct state established,related accept
		ct status dnat accept
		meta l4proto @protocols ip daddr . meta l4proto . th dport @guarded4 goto refuse
	}

	chain hairpin-postrouting {
		type nat hook postrouting priority 100; policy accept;
		ct status dnat ip saddr . ip daddr @hairpins4 masquerade
	}

	chain pick-3 {
		meta l4proto @protocols update @used4 { ip daddr . meta l4proto . th dport } dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @pods4
	}
}
"""  # noqa: E501 - as nft lists it

VIP = Address("10.3.241.152", 80)
LISTENER = Address("10.100.0.2", 10400)
PODS = (Address("10.0.1.2", 8080), Address("10.0.2.2", 8080), Address("10.0.2.3", 9090))
TCP_VIP, UDP_VIP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
GUARDS = (Frontend(Protocol.TCP, LISTENER), Frontend(Protocol.UDP, LISTENER))
RESET, UNREACHABLE = "reject with tcp reset", "reject"
HOOKS = ("prerouting", "output")
TCP, UDP, ICMP = 6, 17, 1


def test_the_rules_read_as_nft_lists_them() -> None:
    assert render(ruleset(frozenset({3}))) == GOLDEN


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
    seen, packet = Kernel({TCP_VIP: target}).send(Packet(destination=VIP), hook)
    assert (seen, packet.destination) == (verdict, destination)


@pytest.mark.parametrize("hook", HOOKS)
def test_udp_without_endpoints_is_refused_by_icmp(hook: str) -> None:
    assert Kernel({UDP_VIP: Refuse()}).send(Packet(destination=VIP, protocol=UDP), hook)[0] == UNREACHABLE


@pytest.mark.parametrize(
    "packet",
    [
        Packet(destination=VIP, protocol=UDP),
        Packet(destination=VIP, protocol=ICMP),
        Packet(destination=Address(VIP.ip, 81)),
        Packet(destination=Address("10.3.241.153", 80)),
        Packet(destination=VIP, family=10),
    ],
    ids=["another protocol", "no ports", "another port", "another address", "IPv6"],
)
@pytest.mark.parametrize("target", [ToListener(LISTENER), ToPods(PODS), Refuse(), Drop()])
def test_a_packet_that_is_not_to_the_frontend_is_left_alone(packet: Packet, target: Target) -> None:
    for hook in HOOKS:
        assert Kernel({TCP_VIP: target}).send(packet, hook) == ("accept", packet)


@pytest.mark.parametrize("target", [Refuse(), Drop()])
def test_established_connections_outlive_the_last_endpoint(target: Target) -> None:
    packet = Packet(destination=VIP, state=STATE_ESTABLISHED, status=STATUS_DNAT)
    assert Kernel({TCP_VIP: target}).send(packet, "prerouting")[0] == "accept"


def test_every_pod_can_be_drawn() -> None:
    drawn = [
        Kernel({TCP_VIP: ToPods(PODS)}, draw=draw).send(Packet(destination=VIP), "prerouting")[1].destination
        for draw in range(3)
    ]
    assert drawn == list(PODS)


def test_a_pod_that_went_between_two_lookups_is_replaced_by_the_first() -> None:
    kernel = Kernel({TCP_VIP: ToPods(PODS)}, draw=2)
    last = VIP.ip, 2
    (gone,) = [key for key in kernel.sets["pods4"] if key.endswith((last[1]).to_bytes(4, sys.byteorder))]
    del kernel.sets["pods4"][gone]
    assert kernel.send(Packet(destination=VIP), "prerouting")[1].destination == PODS[0]


@pytest.mark.parametrize("target", [ToListener(LISTENER), Refuse(), ToPods(PODS)])
def test_a_packet_straight_to_a_listener_is_refused_wherever_its_service_leads(target: Target) -> None:
    kernel = Kernel({TCP_VIP: target}, guards=GUARDS)
    assert kernel.send(Packet(destination=LISTENER), "prerouting", "input")[0] == RESET
    kernel = Kernel({UDP_VIP: target}, guards=GUARDS)
    assert kernel.send(Packet(destination=LISTENER, protocol=UDP), "prerouting", "input")[0] == UNREACHABLE


@pytest.mark.parametrize("hook", HOOKS)
def test_a_translated_packet_passes_the_guard(hook: str) -> None:
    kernel = Kernel({TCP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    assert kernel.send(Packet(destination=VIP), hook, "input")[0] == "accept"


def test_established_connections_pass_the_guard() -> None:
    kernel = Kernel({TCP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    assert kernel.send(Packet(destination=LISTENER, state=STATE_ESTABLISHED), "input")[0] == "accept"


def test_other_ports_of_the_host_are_not_guarded() -> None:
    kernel = Kernel({TCP_VIP: ToListener(LISTENER)}, guards=GUARDS)
    assert kernel.send(Packet(destination=Address(LISTENER.ip, 22)), "input")[0] == "accept"


def test_only_a_pod_that_is_sent_to_itself_is_masqueraded() -> None:
    kernel = Kernel({TCP_VIP: ToPods(PODS[:1])})
    itself = Packet(source=PODS[0].ip, destination=VIP)
    assert kernel.send(itself, "prerouting", "postrouting")[0] == "masquerade"
    assert kernel.send(Packet(destination=VIP), "prerouting", "postrouting")[0] == "accept"
    untranslated = Packet(source=PODS[0].ip, destination=PODS[0])
    assert kernel.send(untranslated, "postrouting")[0] == "accept"


def test_the_number_of_rules_does_not_grow_with_services() -> None:
    many = {Frontend(Protocol.TCP, Address(f"10.3.0.{host}", 80)): ToPods(PODS) for host in range(1, 250)}
    assert Kernel(many).ruleset == Kernel({TCP_VIP: ToPods(PODS)}).ruleset


@pytest.mark.parametrize(
    "name", ["pick-", "pick-0", "pick-03", "pick-x", "pick--1", "capture", "3", "pick-²"]
)
def test_a_chain_of_another_name_is_not_taken_for_a_pick(name: str) -> None:
    assert pick_size(name) == 0


def test_a_pick_chain_is_known_by_its_name() -> None:
    assert pick_size(pick_name(12)) == 12
