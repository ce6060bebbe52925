"""Where packets to a Service go, from a pod and from the host itself."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.node import BOTH_FAMILIES, HOST_IP, LISTENER, REFUSED, SERVER1, SERVER2, VIP
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, Refuse, ToListener, ToPods
from userproxy.netfilter.conntrack.stale import forget
from userproxy.netfilter.nftables import Nftables
from userproxy.tests.twins import twin

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from integration.netfilter.node import Node

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
REFUSED_WITHIN_SECONDS = 0.5
EVERYBODY = ("server1", "server2", "host")


def of(
    family: str, frontends: Mapping[Frontend, Collection[Address]]
) -> Mapping[Frontend, Collection[Address]]:
    """The same of that family."""
    told: Mapping[Frontend, Collection[Address]] = twin(dict(frontends)) if family == "IPv6" else frontends
    return told


@BOTH_FAMILIES
@pytest.mark.parametrize("asker", EVERYBODY)
def test_a_service_is_redirected_to_its_listener(node: Node, nftables: Nftables, asker: str) -> None:
    node.default_route()
    nftables.apply(CaptureChange(put={TCP: ToListener(LISTENER), UDP: ToListener(LISTENER)}))
    with node.serving("host", LISTENER, "proxy"):
        assert node.ask(asker).startswith("proxy ")
        assert node.ask_udp(asker).startswith("proxy ")


@BOTH_FAMILIES
@pytest.mark.parametrize("asker", EVERYBODY)
def test_a_service_without_endpoints_refuses_at_once(node: Node, nftables: Nftables, asker: str) -> None:
    node.default_route()
    nftables.apply(CaptureChange(put={TCP: Refuse(), UDP: Refuse()}))
    for ask in (node.ask, node.ask_udp):
        begun = time.monotonic()
        with pytest.raises(REFUSED if asker == "host" else ConnectionRefusedError):
            ask(asker)
        assert time.monotonic() - begun < REFUSED_WITHIN_SECONDS


@BOTH_FAMILIES
@pytest.mark.parametrize("asker", EVERYBODY)
def test_a_connection_straight_to_a_listener_is_refused(node: Node, nftables: Nftables, asker: str) -> None:
    node.default_route()
    with node.serving("host", LISTENER, "proxy"):
        assert node.ask(asker, LISTENER).startswith("proxy "), "without a capture the port is anybody's"
        guards = frozenset({Frontend(Protocol.TCP, LISTENER), Frontend(Protocol.UDP, LISTENER)})
        to_listener = dict.fromkeys((TCP, UDP), ToListener(LISTENER))
        nftables.apply(CaptureChange(put={**to_listener}, guard=guards))
        for change in (CaptureChange(), CaptureChange(put={TCP: Refuse(), UDP: Drop()})):
            nftables.apply(change)
            for ask in (node.ask, node.ask_udp):
                with pytest.raises(ConnectionRefusedError):
                    ask(asker, LISTENER)
        nftables.apply(CaptureChange(put={**to_listener}))
        assert node.ask(asker).startswith("proxy ")


@BOTH_FAMILIES
def test_a_dropped_service_answers_nothing(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: Drop()}))
    with pytest.raises(TimeoutError):
        node.ask("server1")


@BOTH_FAMILIES
@pytest.mark.parametrize("asker", EVERYBODY)
def test_a_service_is_redirected_to_its_pods_evenly(node: Node, nftables: Nftables, asker: str) -> None:
    node.default_route()
    nftables.apply(CaptureChange(put={TCP: ToPods((SERVER1, SERVER2)), UDP: ToPods((SERVER1, SERVER2))}))
    with node.serving("server1", SERVER1, "server1"), node.serving("server2", SERVER2, "server2"):
        answered = Counter(node.ask(asker).split()[0] for _ in range(200))
        assert set(answered) == {"server1", "server2"}
        # 200 fair draws leave 60..140 less than once in 10^8 runs.
        assert all(60 <= count <= 140 for count in answered.values()), answered
        assert {node.ask_udp(asker).split()[0] for _ in range(40)} == {"server1", "server2"}


def test_the_kernel_notes_which_services_it_sends_to_pods(node: Node, nftables: Nftables) -> None:
    unused = Frontend(Protocol.TCP, Address("10.3.0.9", 80))
    target = ToPods((SERVER1, SERVER2))
    nftables.apply(CaptureChange(put={TCP: target, UDP: target, unused: target}))
    assert nftables.used() == set()
    with node.serving("server1", SERVER1, "1"), node.serving("server2", SERVER2, "2"):
        for _ in range(4):
            node.ask("server1")
    assert nftables.used() == {TCP}
    assert nftables.verify() == (), "what the kernel notes is no tampering"
    nftables.close()
    with node.inside("host"), Nftables() as successor:
        assert successor.ensure().captures.keys() == {TCP, UDP, unused}
        assert successor.used() == {TCP}, "and a new daemon finds it there"


@BOTH_FAMILIES
def test_a_pod_reaches_itself_through_its_service(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: ToPods((SERVER1,)), UDP: ToPods((SERVER1,))}))
    with node.serving("server1", SERVER1, "server1"):
        assert node.ask("server1") == "server1 10.0.1.1", "masqueraded as the host"
        assert node.ask_udp("server1") == "server1 10.0.1.1"
        assert node.ask("server2") == "server1 10.0.2.2", "anybody else is seen under its own address"


@BOTH_FAMILIES
def test_a_connection_outlives_the_last_endpoint_and_the_capture(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: ToListener(LISTENER)}))
    with node.serving("host", LISTENER, "proxy"), node.connect("server1") as connection:
        assert connection.recv(100)
        for change in (CaptureChange(put={TCP: Refuse()}), CaptureChange(remove=frozenset({TCP}))):
            nftables.apply(change)
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"


@BOTH_FAMILIES
def test_a_udp_client_moves_when_its_flow_is_forgotten(node: Node, nftables: Nftables, family: str) -> None:
    other = Frontend(Protocol.UDP, SERVER2)
    with node.serving("server1", SERVER1, "server1"), node.serving("server2", SERVER2, "server2"):
        nftables.apply(CaptureChange(put={UDP: ToPods((SERVER1,))}))
        assert node.ask_udp("server2", source_port=5353).startswith("server1 ")
        nftables.apply(CaptureChange(put={UDP: ToPods((SERVER2,))}))
        assert node.ask_udp("server2", source_port=5353).startswith("server1 "), "the flow is remembered"
        with node.inside("host"):
            assert forget(of(family, {other: (), TCP: ()})) == 0
            assert forget(of(family, {UDP: (SERVER2, SERVER1)})) == 0, "it leads to a pod that stays"
            assert forget(of(family, {UDP: (SERVER2,)})) == 1
        assert node.ask_udp("server2", source_port=5353).startswith("server2 ")


@BOTH_FAMILIES
@pytest.mark.parametrize("others", [0, 100])
def test_only_the_flows_of_the_named_frontends_are_forgotten(
    node: Node, nftables: Nftables, family: str, others: int
) -> None:
    second = Frontend(Protocol.UDP, Address(VIP.ip, 81))
    named = dict.fromkeys(
        [UDP, *(Frontend(Protocol.UDP, Address("10.3.0.1", port)) for port in range(1, others + 1))], ()
    )
    nftables.apply(CaptureChange(put={UDP: ToPods((SERVER1,)), second: ToPods((SERVER1,)), TCP: Refuse()}))
    with node.serving("server1", SERVER1, "server1"):
        for frontend in (UDP, second, UDP):
            node.ask_udp("server2", frontend.address)
        with node.inside("host"):
            assert forget(of(family, named)) == 2
            assert forget(of(family, named)) == 0
            assert forget(of(family, {second: ()})) == 1


@BOTH_FAMILIES
@pytest.mark.parametrize("others", [0, 100])
def test_a_client_from_before_the_capture_is_served_when_it_is_forgotten(
    node: Node, nftables: Nftables, family: str, others: int
) -> None:
    answered = Frontend(Protocol.TCP, SERVER1)
    named = dict.fromkeys(
        [TCP, answered, *(Frontend(Protocol.TCP, Address("10.3.0.1", port)) for port in range(others))], ()
    )
    node.lead_nowhere(VIP.ip)
    with (
        node.serving("server1", SERVER1, "server1"),
        node.connect("server2", SERVER1) as untranslated,
        node.connecting("server2", VIP) as early,
    ):
        assert untranslated.recv(100)
        nftables.apply(CaptureChange(put={TCP: ToPods((SERVER1,))}))
        with node.connect("server2") as translated, node.inside("host"):
            assert translated.recv(100)
            assert forget(of(family, {UDP: ()})) == 0
            assert forget(of(family, named)) == 1, "who was answered stays"
            assert forget(of(family, named)) == 0
            assert early.recv(100).startswith(b"server1 "), "its next SYN is sent to the pod"
            for connection in (untranslated, translated):
                connection.sendall(b"still there?")
                assert connection.recv(100) == b"still there?"


def test_the_listener_sees_the_client_and_its_original_destination(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: ToListener(LISTENER)}))
    with node.serving("host", LISTENER, "proxy"):
        assert node.ask("server1") == "proxy 10.0.1.2"
        entries = node.run("host", "cat", "/proc/net/nf_conntrack")
    assert f"dst={VIP.ip}" in entries
    assert f"src={HOST_IP}" in entries
