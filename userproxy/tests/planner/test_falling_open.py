"""Who is behind a listener, for the time when no worker accepts clients there."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.service import Entry, EntryKind, Path, Protocol, ServicePort
from userproxy.model.settings import NoEndpoints, Settings
from userproxy.model.state import Frontend, NodeState, Refuse, ToListener, ToPods
from userproxy.planner.actions import actions_for
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.planner.unopened import without_listeners
from userproxy.tests.planner.test_state import POD1, POD2, service, snapshot
from userproxy.tests.services import context

LISTENER = Address("10.100.0.2", 10400)
PODS = ToPods((POD1, POD2), masquerade=True)
CLUSTER_IP = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
NODE_PORT = Entry(EntryKind.NODE_PORT, Address("0.0.0.0", 30080))  # noqa: S104 - as the API has it
ONE = service(1)


def planned(
    wanted: ServicePort, *, pods: bool = True, fall_open: bool = True, actual: NodeState | None = None
) -> NodeState:
    found = snapshot([wanted]) if pods else snapshot([wanted], pods=[])
    made = context(Path.REDIRECT_TO_HOST, fall_open=fall_open)
    return Planner(PortBook(made.ports)).wanted(found, made, actual or NodeState())[0]


def choosing(**settings: object) -> ServicePort:
    return replace(ONE, settings=replace(Settings(), **settings))


def test_the_pods_of_a_service_are_behind_its_listener_and_always_see_the_node() -> None:
    state = planned(ONE)
    assert dict(state.captures) == {CLUSTER_IP: ToListener(LISTENER, PODS)}
    assert dict(state.pods) == {}, "a stray segment to a socket of our own is none of the rules' business"
    assert state.workers == 1


@pytest.mark.parametrize(
    ("chosen", "by_default", "falls"),
    [
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ],
)
def test_who_demands_the_relay_has_nobody_behind_it(
    chosen: bool | None, by_default: bool, falls: bool
) -> None:
    captures = planned(choosing(fall_open=chosen), fall_open=by_default).captures
    assert captures[CLUSTER_IP] == ToListener(LISTENER, PODS if falls else None)


def test_clients_that_wait_for_endpoints_have_nowhere_else_to_go() -> None:
    holding = choosing(no_endpoints=NoEndpoints.HOLD)
    assert planned(holding, pods=False).captures[CLUSTER_IP] == ToListener(LISTENER)
    assert planned(holding).captures[CLUSTER_IP] == ToListener(LISTENER, PODS)
    assert planned(ONE, pods=False).captures[CLUSTER_IP] == Refuse()


def test_a_node_port_on_loopback_leads_no_further() -> None:
    captures = planned(replace(ONE, entries=(*ONE.entries, NODE_PORT))).captures
    by_ip = {key.address.ip: target for key, target in captures.items()}
    assert by_ip["127.0.0.1"] == ToListener(LISTENER)
    assert by_ip["10.100.0.2"] == by_ip[CLUSTER_IP.address.ip] == ToListener(LISTENER, PODS)


def test_affinity_holds_behind_the_listener_too() -> None:
    captures = planned(replace(ONE, affinity=60.0)).captures
    assert captures[CLUSTER_IP] == ToListener(LISTENER, replace(PODS, affinity=60.0))


def test_the_number_of_workers_goes_with_the_first_change() -> None:
    state = planned(ONE)
    assert actions_for(state, NodeState()).capture.workers == 1
    assert actions_for(state, state).capture.workers is None
    assert actions_for(state, replace(state, workers=0)).capture.workers == 1, "after a stop"


def test_who_has_an_earlier_listener_keeps_the_pods_behind_it() -> None:
    actual = planned(ONE)
    wanted = replace(
        actual,
        serves={
            name: replace(each, listener=Address("10.100.0.2", 10450)) for name, each in actual.serves.items()
        },
    )
    wanted = replace(wanted, captures={CLUSTER_IP: ToListener(Address("10.100.0.2", 10450), PODS)})
    state = without_listeners(wanted, actual, list(wanted.serves))
    assert state.captures[CLUSTER_IP] == ToListener(LISTENER, PODS)
