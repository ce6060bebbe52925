"""What a Service's settings and endpoints come to, beyond where its packets go."""

from __future__ import annotations

import msgspec
import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.network import NodeNetwork
from userproxy.model.service import Path, PoolName, Protocol, ServicePort, ServicePortName, TrafficPolicy
from userproxy.model.settings import Balance, Check, HealthCheck, NoEndpoints, ProxyProtocol, Settings
from userproxy.model.snapshot import Node
from userproxy.model.state import Drop, Frontend, Refuse, Target, ToListener, ToPods
from userproxy.planner.context import PlanContext
from userproxy.planner.outcome import Outcome, Traffic
from userproxy.planner.paths import PATHS, to_host, to_pod
from userproxy.tests.services import cluster_ips

FRONTEND = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
CONTEXT = PlanContext(
    Node("here", "zone-a"),
    NodeNetwork(("10.100.0.2",)),
    Path.REDIRECT_TO_HOST,
    range(10400, 10500),
    fall_open=False,
)
READY = Endpoint(address=Address("10.0.1.2", 8080))
LEAVING = Endpoint(address=Address("10.0.1.3", 8080), ready=False, terminating=True)
GONE = Endpoint(address=Address("10.0.1.4", 8080), ready=False, serving=False, terminating=True)


def served(settings: Settings) -> tuple[Settings, tuple[Address, ...]]:
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=Protocol.TCP,
        entries=cluster_ips(Address("10.3.0.1", 80)),
        settings=settings,
    )
    ports = {PoolName.of(service.name): 10400}
    (serve,) = to_host.outcome_of(Traffic(service, (READY, LEAVING), ports, CONTEXT)).serves.values()
    return serve.settings, serve.leaving


def test_settings_reach_the_data_side() -> None:
    chosen = Settings(balance=Balance.RANDOM_TWO)
    assert served(chosen) == (chosen, ())


def test_who_wants_removed_pods_dealt_with_is_told_which_are_only_leaving() -> None:
    assert served(Settings(close_on_removal=5.0))[1] == (LEAVING.address,)


@pytest.mark.parametrize(
    ("settings", "protocol", "falls_open"),
    [
        (Settings(), Protocol.TCP, True),
        (Settings(fall_open=False), Protocol.TCP, False),
        (Settings(proxy_protocol=ProxyProtocol.V1), Protocol.TCP, False),
        (Settings(accept_proxy_protocol=("192.0.2.0/24",)), Protocol.TCP, False),
        (Settings(proxy_protocol=ProxyProtocol.V1), Protocol.UDP, True),
        (Settings(proxy_protocol=ProxyProtocol.V1, fall_open=True), Protocol.TCP, True),
    ],
)
def test_pods_stand_behind_a_listener_unless_the_relay_alone_will_do(
    settings: Settings, protocol: Protocol, falls_open: bool
) -> None:
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=protocol,
        entries=cluster_ips(FRONTEND.address),
        settings=settings,
    )
    ports = {PoolName.of(service.name): 10400}
    context = msgspec.structs.replace(CONTEXT, fall_open=True)
    (target,) = to_host.outcome_of(Traffic(service, (READY,), ports, context)).captures.values()
    assert isinstance(target, ToListener)
    assert target.behind == (ToPods((READY.address,), masquerade=True) if falls_open else None)


def carried(
    *endpoints: Endpoint, protocol: Protocol = Protocol.TCP, check: HealthCheck = HealthCheck.AUTO
) -> Outcome:
    """What a Service comes to whose packets netfilter sends to its pods."""
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=protocol,
        entries=cluster_ips(FRONTEND.address),
        path=Path.REDIRECT_TO_POD,
        settings=Settings(check=Check(kind=check)),
    )
    return to_pod.outcome_of(Traffic(service, endpoints, {}, CONTEXT))


def test_udp_flows_may_stay_with_a_pod_that_still_serves_though_new_ones_go_elsewhere() -> None:
    frontend = msgspec.structs.replace(FRONTEND, protocol=Protocol.UDP)
    outcome = carried(READY, LEAVING, GONE, protocol=Protocol.UDP)
    assert outcome.captures == {frontend: ToPods((READY.address,))}
    assert outcome.flows == {frontend: (READY.address, LEAVING.address)}
    by_hand = msgspec.structs.replace(READY, drained=True)
    assert carried(by_hand, protocol=Protocol.UDP).captures == {frontend: Refuse()}
    assert carried(by_hand, protocol=Protocol.UDP).flows == {frontend: ()}
    assert carried(READY).flows == {}


@pytest.mark.parametrize(
    ("check", "protocol", "checked"),
    [
        (HealthCheck.TCP, Protocol.TCP, True),
        (HealthCheck.HTTP, Protocol.TCP, True),
        (HealthCheck.AUTO, Protocol.TCP, True),
        (HealthCheck.OFF, Protocol.TCP, False),
        (HealthCheck.TCP, Protocol.UDP, False),
    ],
)
def test_pods_that_netfilter_sends_to_are_checked_unless_they_cannot_or_must_not_be(
    check: HealthCheck, protocol: Protocol, checked: bool
) -> None:
    pools = carried(READY, LEAVING, protocol=protocol, check=check).checked
    assert bool(pools) == checked
    for pool in pools.values():
        assert [backend.address for backend in pool.backends] == [READY.address]


@pytest.mark.parametrize("limits", [Settings(max_connections=5), Settings(max_connections_per_client=5)])
def test_limits_are_the_kernel_s_where_it_chooses_and_it_is_told_if_it_cannot_keep_them(
    limits: Settings,
) -> None:
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=Protocol.TCP,
        entries=cluster_ips(FRONTEND.address),
        settings=limits,
    )
    traffic = Traffic(service, (READY,), {PoolName.of(service.name): 10400}, CONTEXT)
    kept = to_pod.outcome_of(traffic)
    assert kept.problems == ()
    target = ToPods(
        (READY.address,),
        most=limits.max_connections,
        most_per_client=limits.max_connections_per_client,
    )
    assert kept.captures == {FRONTEND: target}
    without = to_pod.outcome_of(traffic._replace(context=msgspec.structs.replace(CONTEXT, limits=False)))
    (problem,) = without.problems
    assert (problem.reason, "nft_connlimit" in problem.message) == ("LimitsNotKept", True)
    assert without.captures == {FRONTEND: ToPods((READY.address,))}
    assert to_host.outcome_of(traffic).problems == ()
    assert carried(READY).problems == ()


HELD = Settings(no_endpoints=NoEndpoints.HOLD)
LISTENER = Address("10.100.0.2", 10400)


def led_to(
    path: Path,
    *endpoints: Endpoint,
    settings: Settings = HELD,
    protocol: Protocol = Protocol.TCP,
    policy: TrafficPolicy = TrafficPolicy.CLUSTER,
) -> tuple[Target | None, tuple[PoolName, ...]]:
    """Where the packets of a Service go, and which pools have a listener."""
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=protocol,
        entries=cluster_ips(FRONTEND.address),
        internal_traffic_policy=policy,
        settings=settings,
    )
    listeners = PATHS[path].listeners_of(service, CONTEXT)
    ports = dict.fromkeys(listeners, LISTENER.port)
    outcome = PATHS[path].outcome_of(Traffic(service, endpoints, ports, CONTEXT))
    assert tuple(outcome.serves) == listeners
    return outcome.captures.get(Frontend(protocol, FRONTEND.address)), listeners


@pytest.mark.parametrize("path", Path)
def test_who_is_to_wait_for_an_endpoint_is_sent_to_a_listener_on_either_path(path: Path) -> None:
    by_listener = ToListener(LISTENER, steered=path is Path.STEERED), (PoolName("default", "web"),)
    assert led_to(path) == by_listener
    assert led_to(path, GONE) == by_listener
    assert led_to(path, settings=Settings())[0] == Refuse()


def test_on_the_path_redirect_to_pod_the_listener_is_out_of_the_way_once_there_is_a_pod() -> None:
    assert led_to(Path.REDIRECT_TO_POD, READY) == (ToPods((READY.address,)), (PoolName("default", "web"),))
    assert led_to(Path.REDIRECT_TO_POD, READY, settings=Settings())[1] == ()


def test_nobody_waits_over_udp() -> None:
    assert led_to(Path.REDIRECT_TO_POD, protocol=Protocol.UDP) == (Refuse(), ())


@pytest.mark.parametrize("path", Path)
def test_nobody_waits_where_endpoints_exist_that_the_policy_forbids(path: Path) -> None:
    assert led_to(path, READY, policy=TrafficPolicy.LOCAL)[0] == Drop()


def test_without_a_host_port_to_wait_at_clients_are_refused_and_that_is_told() -> None:
    service = ServicePort(
        name=ServicePortName("default", "web"),
        protocol=Protocol.TCP,
        entries=cluster_ips(FRONTEND.address),
        settings=HELD,
    )
    outcome = to_pod.outcome_of(Traffic(service, (), {}, CONTEXT))
    assert outcome.captures == {FRONTEND: Refuse()}
    assert [problem.reason for problem in outcome.problems] == ["PortRangeExhausted"]
