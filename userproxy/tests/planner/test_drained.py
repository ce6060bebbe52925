"""What an operator has taken out stays out, whatever the sources say meanwhile."""

from __future__ import annotations

import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.filter import parse_backend
from userproxy.model.service import Protocol, ServicePort, ServicePortName
from userproxy.model.snapshot import Node, Snapshot
from userproxy.planner.drained import Drained
from userproxy.planner.topology import select
from userproxy.tests.services import cluster_ips

WEB, DNS = ServicePortName("default", "web"), ServicePortName("default", "dns")
POD1, POD2 = Endpoint(address=Address("10.0.1.2", 8080)), Endpoint(address=Address("10.0.2.2", 8080))
POD1_DNS = Endpoint(address=Address("10.0.1.2", 53))


def snapshot(*web: Endpoint) -> Snapshot:
    return Snapshot({}, {WEB: web, DNS: (POD1_DNS,)})


def out(drained: Drained, *web: Endpoint) -> list[str]:
    marked = drained.mark(snapshot(*web))
    return [str(each.address) for name in (WEB, DNS) for each in marked.endpoints[name] if each.drained]


def drained(*addresses: str) -> Drained:
    made = Drained()
    for address in addresses:
        made.add(parse_backend(address))
    return made


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.1.2:8080", ["10.0.1.2:8080"]),
        ("10.0.1.2", ["10.0.1.2:8080", "10.0.1.2:53"]),
        ("10.0.9.9", []),
    ],
)
def test_a_pod_is_out_on_one_port_or_on_all(address: str, expected: list[str]) -> None:
    assert out(drained(address), POD1, POD2) == expected


def test_it_stays_out_when_the_endpoints_change_until_it_is_undone() -> None:
    mine = drained("10.0.1.2:8080")
    assert out(mine, POD1) == ["10.0.1.2:8080"]
    assert out(mine, POD1, POD2) == ["10.0.1.2:8080"]
    assert mine.remove(POD1.address)
    assert out(mine, POD1, POD2) == []
    assert not mine.remove(POD1.address)


def test_what_does_not_change_keeps_its_identity() -> None:
    mine, before = drained("10.0.1.2:8080"), snapshot(POD1, POD2)
    first, second = mine.mark(before), mine.mark(before)
    assert first.endpoints[DNS] is before.endpoints[DNS]
    assert first.endpoints[WEB] is second.endpoints[WEB]
    assert Drained().mark(before) is before


def test_an_address_that_no_backend_has_any_more_is_told() -> None:
    mine = drained("10.0.1.2:8080", "10.0.7.7")
    (problem,) = mine.idle(mine.mark(snapshot(POD1)))
    assert (problem.about, problem.reason) == ("10.0.7.7", "DrainedBackendGone")
    assert "userproxy drain --undo 10.0.7.7" in problem.message


def test_a_drained_pod_is_not_even_a_last_resort() -> None:
    service = ServicePort(name=WEB, protocol=Protocol.TCP, entries=cluster_ips(Address("10.3.0.1", 80)))
    terminating = Endpoint(address=POD1.address, ready=False, terminating=True)
    mine = drained("10.0.1.2")
    for endpoint in (POD1, terminating):
        marked = mine.mark(snapshot(endpoint)).endpoints[WEB]
        assert select(service, marked, Node("here")).backends == ()
