"""How each backend is by what the source says and by where traffic goes, and since when."""

from __future__ import annotations

import msgspec
import pytest

from userproxy.control.conditions import Conditions
from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Path, Protocol, ServicePort, TrafficPolicy
from userproxy.model.snapshot import EMPTY, Snapshot
from userproxy.model.state import NodeState
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.tests.control.rig.node import CART, POD1, POD2, WEB, service, snapshot
from userproxy.tests.services import context
from userproxy.tests.sockets import Clock

SERVICE = service()
POD = Endpoint(address=POD1, node="host1")
OTHER = Endpoint(address=POD2, node="host2")
IPV6 = Endpoint(address=Address("fd00::2", 8080))
NEARER = "other endpoints are nearer, or the traffic policy excludes it"


class Judge:
    """Conditions that follow what a real planner makes of one snapshot after another."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.conditions = Conditions(self.clock)
        self._planner = Planner(PortBook(range(10400, 10500)))
        self._state = NodeState()

    def observe(self, wanted: Snapshot) -> None:
        """It is applied."""
        self._state, _ = self._planner.wanted(wanted, context(), self._state)
        self.conditions.observe(wanted, self._state)

    def of(self, *endpoints: Endpoint, service: ServicePort = SERVICE) -> list[tuple[str, str]]:
        """State and reason of each of these, behind a Service."""
        self.observe(Snapshot({service.name: service}, {service.name: endpoints}))
        found = self.conditions.of(service.name)
        return [(found[each.address].state, found[each.address].reason) for each in endpoints]

    def since(self) -> float:
        """Of the first pod."""
        return self.conditions.of(WEB)[POD1].since


def changed(endpoint: Endpoint, **fields: object) -> Endpoint:
    """The same but for these fields."""
    return msgspec.structs.replace(endpoint, **fields)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (POD, ("up", "")),
        (changed(POD, ready=False), ("down", "not ready")),
        (changed(POD, ready=False, terminating=True), ("draining", "terminating")),
        (changed(POD, drained=True), ("draining", "drained by an operator")),
        (changed(POD, drained=True, ready=False), ("draining", "drained by an operator")),
        (changed(IPV6), ("unused", "the Service has no IPv6 address")),
        (changed(IPV6, ready=False), ("down", "not ready")),
    ],
)
def test_an_endpoint_beside_one_that_is_ready(endpoint: Endpoint, expected: tuple[str, str]) -> None:
    assert Judge().of(endpoint, OTHER)[0] == expected


def test_a_terminating_endpoint_serves_while_nothing_else_is_ready_and_says_so() -> None:
    last = changed(POD, ready=False, terminating=True)
    assert Judge().of(last, changed(OTHER, ready=False)) == [
        ("up", "terminating, and nothing else is ready"),
        ("down", "not ready"),
    ]


def test_an_endpoint_that_the_traffic_policy_excludes_is_unused() -> None:
    local = msgspec.structs.replace(service(), internal_traffic_policy=TrafficPolicy.LOCAL)
    assert Judge().of(POD, OTHER, service=local) == [("up", ""), ("unused", NEARER)]


def test_an_endpoint_that_hints_leave_to_another_zone_is_unused() -> None:
    near, far = changed(POD, hint_zones=("east",)), changed(OTHER, hint_zones=("west",))
    assert Judge().of(near, far) == [("up", ""), ("unused", NEARER)]


@pytest.mark.parametrize("path", list(Path))
def test_where_nothing_of_a_family_is_served_each_endpoint_says_why(path: Path) -> None:
    ipv6 = service(WEB, "[fd00::1]:80", path=path)
    assert Judge().of(POD, IPV6, service=ipv6) == [
        ("unused", "the Service has no IPv4 address"),
        ("unused", "this node has no IPv6 address"),
    ]
    both = service(WEB, "10.3.0.1:80", "[fd00::1]:80", path=path)
    assert Judge().of(POD, IPV6, service=both) == [("up", ""), ("unused", "this node has no IPv6 address")]


@pytest.mark.parametrize("protocol", list(Protocol))
def test_pods_that_the_kernel_sends_packets_to_are_up(protocol: Protocol) -> None:
    to_pod = service(path=Path.REDIRECT_TO_POD, protocol=protocol)
    assert Judge().of(POD, OTHER, service=to_pod) == [("up", ""), ("up", "")]


def test_a_state_is_as_old_as_the_change_that_led_to_it() -> None:
    judge = Judge()
    judge.of(POD, OTHER)
    came = judge.since()
    judge.clock.now += 10
    judge.of(POD)
    judge.of(POD, service=service(WEB, "10.3.0.9:80"))
    assert judge.since() == came
    judge.of(changed(POD, ready=False))
    assert judge.since() == judge.clock.now


def test_another_reason_for_the_same_state_is_told_and_does_not_make_it_younger() -> None:
    judge = Judge()
    judge.of(changed(POD, ready=False, terminating=True), OTHER)
    came = judge.since()
    judge.clock.now += 10
    assert judge.of(changed(POD, drained=True), OTHER)[0] == ("draining", "drained by an operator")
    assert judge.since() == came


def test_a_service_that_is_gone_has_no_conditions_and_begins_anew() -> None:
    judge = Judge()
    judge.of(POD)
    judge.observe(EMPTY)
    assert judge.conditions.of(WEB) == {}
    judge.clock.now += 10
    judge.of(POD)
    assert judge.since() == judge.clock.now


def test_endpoints_that_are_gone_with_their_slices_have_no_conditions() -> None:
    judge = Judge()
    judge.of(POD)
    judge.observe(Snapshot({WEB: service()}, {}))
    assert judge.conditions.of(WEB) == {}


def test_who_is_touched_by_nothing_is_not_judged_again() -> None:
    judge = Judge()
    before = snapshot(service(), service(CART, "10.3.0.2:80"))
    judge.observe(before)
    kept = judge.conditions.of(CART)
    judge.observe(msgspec.structs.replace(before, endpoints={**before.endpoints, WEB: (POD,)}))
    assert judge.conditions.of(CART) is kept


def test_pods_that_leave_the_kernel_s_map_for_another_reason_than_the_source_s_are_judged_anew() -> None:
    judge = Judge()
    wanted = snapshot(service(path=Path.REDIRECT_TO_POD))
    judge.observe(wanted)
    bare = NodeState()  # as while the kernel has yet to be told
    judge.conditions.observe(wanted, bare)
    assert {each.state for each in judge.conditions.of(WEB).values()} == {"unused"}
