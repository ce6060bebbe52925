"""Heartbeats, and where packets go while workers are alive, or are not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.heartbeat import BEAT_PORT, LEAVE_PORT
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Perimeter, ToListener, ToPods
from userproxy.netfilter.ruleset.chains import ruleset
from userproxy.netfilter.ruleset.made import Relay, parse
from userproxy.netfilter.ruleset.text import listed
from userproxy.netfilter.ruleset.vacancy import STATUS_CONFIRMED
from userproxy.netfilter.trace.walk import Packet, Table
from userproxy.tests.netfilter.ruleset.tracer import Kernel

VIP, LISTENER, POD = Address("10.3.241.152", 80), Address("10.100.0.2", 10400), Address("10.0.1.2", 8080)
TCP, UDP = 6, 17
PROTOCOLS = {TCP: Protocol.TCP, UDP: Protocol.UDP}
TARGET = ToListener(LISTENER, ToPods((POD,), masquerade=True))
MASQUERADE = "masquerade"


def kernel(
    workers: int, alive: tuple[int, ...], target: ToListener | ToPods = TARGET, *, outside: bool = False
) -> Kernel:
    captures = {Frontend(each, VIP, outside=outside): target for each in PROTOCOLS.values()}
    guards = {Frontend(each, LISTENER): None for each in PROTOCOLS.values()}
    perimeter = Perimeter(uplinks=("eth0",), inside=("10.0.0.0/14",))
    state = NodeState(captures=captures, guards=guards, workers=workers, perimeter=perimeter)
    return Kernel(state, alive=alive)


def reached(asked: Kernel, protocol: int = TCP, device: str = "cbr0", source: str = "10.0.1.3") -> Address:
    packet = Packet(source=source, destination=VIP, protocol=protocol, device=device)
    return asked.send(packet, "prerouting")[1].destination


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    ("workers", "alive", "tcp", "udp"),
    [
        (1, (0,), LISTENER, LISTENER),
        (1, (), POD, POD),
        (3, (0, 1, 2), LISTENER, LISTENER),
        (3, (2,), LISTENER, POD),
        (3, (), POD, POD),
        (1, (1, 2), POD, POD),
        (0, (0, 1), POD, POD),
    ],
)
def test_one_worker_will_do_for_tcp_and_udp_needs_all(
    workers: int, alive: tuple[int, ...], tcp: Address, udp: Address, outside: bool
) -> None:
    asked = kernel(workers, alive, outside=outside)
    origin = {"device": "eth0", "source": "192.0.2.7"} if outside else {}
    assert reached(asked, TCP, **origin) == tcp
    assert reached(asked, UDP, **origin) == udp


def test_a_heartbeat_is_noted_and_goes_nowhere_and_a_farewell_holds_at_once() -> None:
    asked = kernel(1, ())
    assert asked.beat(0, BEAT_PORT) == "drop"
    assert reached(asked) == LISTENER
    assert asked.beat(0, LEAVE_PORT) == "drop"
    assert reached(asked) == POD
    assert asked.beat(0, LEAVE_PORT) == "drop", "nobody is there to forget"


@pytest.mark.parametrize("mark", [0, 0x75710000, 0x4000, 0x75700100])
def test_a_datagram_with_another_mark_is_none(mark: int) -> None:
    asked = kernel(1, ())
    packet = Packet(source="127.0.0.1", destination=Address("127.0.0.1", BEAT_PORT), protocol=UDP, mark=mark)
    assert Table.send(asked, packet, "output")[0] == "accept"
    assert not asked.sets["alive"]


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_listener_that_is_gone_loses_one_packet_whatever_hearts_say(protocol: int, outside: bool) -> None:
    asked = kernel(1, (0,), outside=outside)
    origin = {"device": "eth0", "source": "192.0.2.7"} if outside else {}
    packet = replace(Packet(destination=VIP, protocol=protocol), **origin)
    assert asked.send(packet, "prerouting", "input") == ("accept", asked.send(packet, "prerouting")[1])
    lost = replace(packet, has_socket=False)
    assert asked.send(lost, "prerouting", "input")[0] == "drop", "lest conntrack remember where it was sent"
    own = replace(lost, status=STATUS_CONFIRMED)
    assert asked.send(own, "input")[0] == "accept", "the kernel refuses what comes from the host itself"
    assert reached(asked, protocol, **origin) == POD
    assert reached(asked, {TCP: UDP, UDP: TCP}[protocol], **origin) == LISTENER


@pytest.mark.parametrize(("target", "destination"), [(ToListener(LISTENER), LISTENER), (ToPods((POD,)), POD)])
def test_where_nothing_is_behind_it_is_refused_as_anywhere(
    target: ToListener | ToPods, destination: Address
) -> None:
    asked = kernel(1, (0,), target)
    for _ in range(2):
        verdict, packet = asked.send(Packet(destination=VIP, has_socket=False), "prerouting", "input")
        assert (verdict, packet.destination) == ("accept", destination)


def test_a_kernel_that_finds_no_sockets_is_not_asked_for_any() -> None:
    assert "socket transparent" in listed(ruleset())
    rules = listed(ruleset(quick=False))
    assert "socket" not in rules
    assert "ct status dnat accept" in rules


def test_a_listener_without_pods_behind_it_is_asked_whoever_is_alive() -> None:
    for alive in ((), (0,)):
        assert reached(kernel(1, alive, ToListener(LISTENER))) == LISTENER


def test_pods_alone_are_reached_whoever_is_alive() -> None:
    for alive in ((), (0,)):
        assert reached(kernel(1, alive, ToPods((POD,)))) == POD


def test_whoever_goes_past_the_relay_has_the_address_of_the_node_and_nobody_else_has() -> None:
    for source, device, hook in (
        ("10.0.1.3", "cbr0", "prerouting"),
        (POD.ip, "cbr0", "prerouting"),
        ("10.100.0.2", "", "output"),
        ("10.0.2.3", "eth0", "prerouting"),
        ("192.0.2.7", "eth0", "prerouting"),
    ):
        packet = Packet(source=source, device=device, destination=VIP)
        assert kernel(1, ()).send(packet, hook, "postrouting")[0] == MASQUERADE, source
    own = Packet(source="10.100.0.2", destination=VIP)
    verdict, sent = kernel(1, (0,)).send(own, "output", "postrouting")
    assert (verdict, sent.destination) == ("accept", LISTENER), (
        "the host's own packets to a listener leave too"
    )


def test_affinity_holds_past_the_relay() -> None:
    pods = tuple(Address(f"10.0.2.{host}", 8080) for host in (2, 3, 4))
    asked = kernel(1, (), ToListener(LISTENER, ToPods(pods, masquerade=True, affinity=60.0)))
    chosen = []
    for draw in (1, 0, 2):
        asked.draw = draw
        verdict, sent = asked.send(Packet(destination=VIP, device="cbr0"), "prerouting", "postrouting")
        assert verdict == MASQUERADE
        chosen.append(sent.destination)
    assert chosen == [pods[1]] * 3


def test_the_chain_is_known_by_its_name() -> None:
    for made in (Relay(1), Relay(12, outside=True)):
        assert parse(made.name) == made
    assert parse("relay-0") is None
