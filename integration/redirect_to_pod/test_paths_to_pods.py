"""What a Service without a listener does for its clients: everything that one with a listener does."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.servers import ask, ask_udp, serving, udp_client
from integration.redirect_to_pod.services import put, service, tcp, udp
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.lab.deployment import Lab

IP = "10.3.242.1"
TCP, UDP = tcp(53, 7000), udp(53, 7000)
FRONTEND = Address(IP, 53)
PODS = ("server1", "server2")
EVERYBODY = ("client", "host1", "server1")
REFUSED = (ConnectionRefusedError, PermissionError)
"""The host's own datagram that is refused fails in `send` already, and there the errno is EPERM."""


def by_tcp(lab: Lab, member: str, address: Address = FRONTEND) -> tuple[str, str]:
    return ask(lab, member, address)


def by_udp(lab: Lab, member: str, address: Address = FRONTEND) -> tuple[str, str]:
    with udp_client(lab, member, address) as client:
        return ask_udp(client)


@pytest.mark.parametrize("asks", [by_tcp, by_udp])
@pytest.mark.parametrize("member", EVERYBODY)
def test_pods_and_the_host_itself_get_all_pods_evenly(
    lab: Lab, member: str, asks: Callable[..., tuple[str, str]]
) -> None:
    with serving(lab, PODS, 7000), service(lab, "even", IP, [TCP, UDP], PODS):
        answered = Counter(asks(lab, member)[0] for _ in range(100))
    # 100 fair draws leave 20..80 less than once in 10^9 runs.
    assert all(20 <= answered[f"{pod}:7000"] <= 80 for pod in PODS), answered


@pytest.mark.parametrize("asks", [by_tcp, by_udp])
def test_a_pod_that_asks_itself_sees_its_host(lab: Lab, asks: Callable[..., tuple[str, str]]) -> None:
    with serving(lab, ["server1"], 7000), service(lab, "hairpin", IP, [TCP, UDP], ["server1"]):
        assert asks(lab, "server1") == ("server1:7000", "10.0.1.1")
        assert asks(lab, "client") == ("server1:7000", "10.0.1.3"), "all others are seen as they are"


def test_several_ports_and_protocols_lead_each_to_its_own(lab: Lab) -> None:
    ports = [tcp(53, 7000), udp(53, 7001), tcp(80, 7002), tcp(81, 7002)]
    with serving(lab, ["server2"], 7000, 7001, 7002), service(lab, "several", IP, ports, ["server2"]):
        for member in EVERYBODY:
            assert by_tcp(lab, member)[0] == "server2:7000"
            assert by_udp(lab, member)[0] == "server2:7001"
            assert by_tcp(lab, member, Address(IP, 80))[0] == "server2:7002"
            assert by_tcp(lab, member, Address(IP, 81))[0] == "server2:7002"


@pytest.mark.parametrize("asks", [by_tcp, by_udp])
@pytest.mark.parametrize("member", EVERYBODY)
def test_without_endpoints_it_refuses_at_once_and_recovers(
    lab: Lab, member: str, asks: Callable[..., tuple[str, str]]
) -> None:
    with serving(lab, ["server2"], 7000), service(lab, "empty", IP, [TCP, UDP], []):
        began = time.monotonic()
        with pytest.raises(REFUSED):
            asks(lab, member)
        print(f"{member}, {asks.__name__}: refused after {(time.monotonic() - began) * 1000:.1f} ms")
        assert time.monotonic() - began < 0.5
        put(lab, "empty", IP, [TCP, UDP], ["server2"])
        assert asks(lab, member)[0] == "server2:7000"


@pytest.mark.parametrize("asks", [by_tcp, by_udp])
@pytest.mark.parametrize("member", ["client", "host1"])
def test_a_local_service_stays_on_its_node_and_drops_where_it_has_no_pod(
    lab: Lab, member: str, asks: Callable[..., tuple[str, str]]
) -> None:
    with serving(lab, PODS, 7000), service(lab, "local", IP, [TCP, UDP], PODS, local=True):
        assert {asks(lab, member)[0] for _ in range(20)} == {"server1:7000"}
        put(lab, "local", IP, [TCP, UDP], ["server2"], local=True)
        with pytest.raises((TimeoutError, PermissionError)):
            asks(lab, member)


def test_a_service_and_its_pods_may_be_asked_at_the_same_time(lab: Lab) -> None:
    with serving(lab, PODS, 7000), service(lab, "both", IP, [TCP], ["server1"]):
        assert ask(lab, "client", Address(SERVER1.ip, 7000)) == ("server1:7000", "10.0.1.3")
        assert ask(lab, "client", FRONTEND) == ("server1:7000", "10.0.1.3")
