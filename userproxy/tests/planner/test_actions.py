"""Plans lead where they should, and no packet is misdirected on the way there."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.actions import Actions, CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import PoolName, Protocol, ServicePortName
from userproxy.model.state import (
    Backend,
    Drop,
    Frontend,
    NodeState,
    Perimeter,
    Refuse,
    Serve,
    Target,
    ToListener,
    ToPods,
)
from userproxy.planner.actions import actions_for

POD1, POD2, POD3 = (Address(f"10.0.{number}.2", 8080) for number in (1, 2, 3))
WEB = ServicePortName("default", "web", "http")
POOL = PoolName.of(WEB)
WEB_IP = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
DNS_IP = Frontend(Protocol.UDP, Address("10.3.0.10", 53))
LISTENER = Address("10.100.0.2", 10400)


def web(*pods: Address, listener: Address = LISTENER) -> Serve:
    backends = tuple(Backend(pod) for pod in pods)
    return Serve(service=WEB, listener=listener, backends=backends)


def apply(steps: Actions, state: NodeState) -> NodeState:
    """Apply a plan as the daemon does, and look at each state on the way."""
    serves = dict(state.serves)
    captures = dict(state.captures)
    listening = {serve.listener for serve in serves.values()}
    for serve in steps.serve:
        serves[serve.name] = serve
        listening.add(serve.listener)
        assert no_capture_without_a_listener(captures, listening)
    assert not steps.capture.put.keys() & steps.capture.remove
    captures |= steps.capture.put
    for frontend in steps.capture.remove:
        del captures[frontend]
    change = steps.capture
    guards = dict.fromkeys(state.guards.keys() - change.unguard | change.guard)
    cluster_ips = dict.fromkeys(state.cluster_ips.keys() - change.disclaim | change.claim)
    ranges = {frontend: found for frontend, found in {**state.ranges, **change.ranges}.items() if found}
    assert no_capture_without_a_listener(captures, listening)
    for name in steps.close:
        del serves[name]
    listening = {serve.listener for serve in serves.values()}
    assert no_capture_without_a_listener(captures, listening)
    return NodeState(
        serves,
        captures,
        guards=guards,
        flows=state.flows,
        cluster_ips=cluster_ips,
        ranges=ranges,
        perimeter=change.perimeter or state.perimeter,
    )


def no_capture_without_a_listener(captures: dict[Frontend, Target], listening: set[Address]) -> bool:
    wanted = {target.listener for target in captures.values() if isinstance(target, ToListener)}
    return wanted <= listening


@st.composite
def states(draw: st.DrawFn) -> NodeState:
    """Any state of four Service ports of two frontends each. Each has two host ports that it may be on."""
    serves: dict[PoolName, Serve] = {}
    captures: dict[Frontend, Target] = {}
    guards: set[Frontend] = set()
    flows: dict[Frontend, tuple[Address, ...]] = {}
    cluster_ips: dict[str, None] = {}
    ranges: dict[Frontend, tuple[str, ...]] = {}
    networks = st.sampled_from([(), ("192.0.2.0/24",), ("192.0.2.0/24", "198.51.100.0/24")])
    pods = st.lists(st.sampled_from([POD1, POD2, POD3]), min_size=1, unique=True).map(tuple)
    for number in range(4):
        name = ServicePortName("default", f"service-{number}")
        protocol = Protocol.UDP if number % 2 else Protocol.TCP
        addresses = (Address(f"10.3.0.{number}", 80), Address(f"10.3.1.{number}", 80))
        targets: st.SearchStrategy[Target | None] = st.one_of(
            st.none(), st.just(Refuse()), st.just(Drop()), pods.map(ToPods)
        )
        if draw(st.booleans()):
            listener = Address("10.100.0.2", 10400 + 2 * number + draw(st.integers(0, 1)))
            backends = tuple(Backend(pod) for pod in draw(st.just(()) | pods))
            serve = Serve(service=name, listener=listener, backends=backends)
            serves[serve.name] = serve
            targets |= st.just(ToListener(listener))
            guards.add(Frontend(protocol, listener))
        for address in addresses:
            target = draw(targets)
            if target is not None:
                captures[Frontend(protocol, address)] = target
                cluster_ips[address.ip] = None
                if admitted := draw(networks):
                    ranges[Frontend(protocol, address)] = admitted
                if protocol is Protocol.UDP:
                    flows[Frontend(protocol, address)] = draw(st.just(()) | pods)
    return NodeState(
        serves,
        captures,
        guards=dict.fromkeys(guards),
        flows=flows,
        cluster_ips=cluster_ips,
        ranges=ranges,
        perimeter=Perimeter(uplinks=draw(st.sampled_from([(), ("eth0",)])), closed=draw(st.booleans())),
    )


@given(states(), states())
def test_a_plan_leads_from_any_state_to_any_other(wanted: NodeState, actual: NodeState) -> None:
    reached = apply(actions_for(wanted, actual), actual)
    assert msgspec.structs.replace(reached, flows=wanted.flows) == wanted


@given(states(), states())
def test_a_plan_does_nothing_that_need_not_be_done(wanted: NodeState, actual: NodeState) -> None:
    steps = actions_for(wanted, actual)
    assert all(actual.serves.get(serve.name) != serve for serve in steps.serve)
    assert all(actual.captures.get(frontend) != target for frontend, target in steps.capture.put.items())
    assert steps.capture.remove <= actual.captures.keys()
    assert all(
        actual.flows.get(frontend) != wanted.flows.get(frontend) or frontend not in actual.captures
        for frontend in steps.forget
    )
    assert not steps.capture.guard & actual.guards.keys()
    assert steps.capture.unguard <= actual.guards.keys()
    assert not steps.capture.claim & actual.cluster_ips.keys()
    assert steps.capture.disclaim <= actual.cluster_ips.keys()
    assert all(actual.ranges.get(frontend, ()) != found for frontend, found in steps.capture.ranges.items())
    assert steps.capture.perimeter != actual.perimeter
    assert not steps or wanted != actual


@given(states(), states())
def test_no_udp_flow_stays_where_it_may_no_longer_lead(wanted: NodeState, actual: NodeState) -> None:
    forgotten = actions_for(wanted, actual).forget
    for frontend, pods in actual.flows.items():
        spared = wanted.flows.get(frontend, ())
        if not set(pods) <= set(spared):
            assert forgotten[frontend] == spared


@given(states())
def test_churn_that_ends_where_it_began_is_no_plan(state: NodeState) -> None:
    again = NodeState(
        dict(state.serves),
        dict(state.captures),
        guards=dict(state.guards),
        flows=dict(state.flows),
        cluster_ips=dict(state.cluster_ips),
        ranges=dict(state.ranges),
        perimeter=msgspec.structs.replace(state.perimeter),
    )
    assert not actions_for(state, state)
    assert not actions_for(again, state)


def test_a_new_service_is_listened_for_then_captured() -> None:
    wanted = NodeState({POOL: web(POD1)}, {WEB_IP: ToListener(LISTENER)})
    assert actions_for(wanted, NodeState()) == Actions(
        serve=(web(POD1),), capture=CaptureChange({WEB_IP: ToListener(LISTENER)}), forget={WEB_IP: ()}
    )


def test_a_change_of_backends_leaves_the_kernel_alone() -> None:
    captures: dict[Frontend, Target] = {WEB_IP: ToListener(LISTENER)}
    steps = actions_for(NodeState({POOL: web(POD1, POD2)}, captures), NodeState({POOL: web(POD1)}, captures))
    assert steps == Actions(serve=(web(POD1, POD2),))


def test_a_service_that_switches_to_pods_stops_accepting_after_the_switch() -> None:
    actual = NodeState({POOL: web(POD1)}, {WEB_IP: ToListener(LISTENER)})
    wanted = NodeState({}, {WEB_IP: ToPods((POD1,))})
    assert actions_for(wanted, actual) == Actions(
        capture=CaptureChange({WEB_IP: ToPods((POD1,))}), close=(POOL,)
    )


def test_a_removed_service_is_uncaptured_and_closed() -> None:
    actual = NodeState({POOL: web(POD1)}, {WEB_IP: ToListener(LISTENER)})
    assert actions_for(NodeState(), actual) == Actions(
        capture=CaptureChange(remove=frozenset({WEB_IP})), close=(POOL,)
    )


def dns(pods: tuple[Address, ...] | None) -> NodeState:
    """A UDP Service with these pods, or none."""
    if pods is None:
        return NodeState()
    return NodeState(captures={DNS_IP: ToPods(pods) if pods else Refuse()}, flows={DNS_IP: pods})


def forgets(old: tuple[Address, ...] | None, new: tuple[Address, ...] | None) -> bool:
    return DNS_IP in actions_for(dns(new), dns(old)).forget


def test_udp_flows_to_a_pod_that_went_are_forgotten() -> None:
    assert forgets((POD1, POD2), (POD1, POD3))
    assert forgets((POD1,), ())
    assert forgets((POD1,), None)


def test_udp_flows_that_lead_to_a_current_pod_are_spared() -> None:
    actual, wanted = dns((POD1, POD2)), dns((POD2, POD3))
    assert actions_for(wanted, actual).forget == {DNS_IP: (POD2, POD3)}
    assert actions_for(NodeState(), actual).forget == {DNS_IP: ()}


def test_udp_flows_to_pods_that_stay_are_left_alone() -> None:
    assert not forgets((POD1,), (POD1, POD2))


def test_udp_flows_of_a_service_that_went_while_no_daemon_ran_are_forgotten() -> None:
    adopted = NodeState(captures={DNS_IP: ToPods((POD1,)), WEB_IP: ToPods((POD1,))})
    assert actions_for(NodeState(), adopted).forget == {DNS_IP: ()}


def test_udp_flows_from_before_the_first_capture_or_an_earlier_daemon_are_looked_at_once() -> None:
    wanted = dns((POD1,))
    assert actions_for(wanted, NodeState()).forget == {DNS_IP: (POD1,)}
    assert not actions_for(wanted, wanted)


def test_who_came_before_the_capture_is_forgotten_once() -> None:
    wanted = NodeState(captures={WEB_IP: Refuse()})
    assert actions_for(wanted, NodeState()).forget == {WEB_IP: ()}
    assert not actions_for(NodeState(captures={WEB_IP: ToPods((POD1,))}), wanted).forget
    assert not actions_for(NodeState(), wanted).forget
