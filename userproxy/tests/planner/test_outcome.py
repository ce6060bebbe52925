"""What a Service's settings and endpoints come to, beyond where its packets go."""

from __future__ import annotations

import msgspec
import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.network import NodeNetwork
from userproxy.model.service import Path, PoolName, Protocol, ServicePort, ServicePortName
from userproxy.model.settings import Balance, Check, HealthCheck, Settings
from userproxy.model.snapshot import Node
from userproxy.model.state import Frontend, Refuse, ToPods
from userproxy.planner.context import PlanContext
from userproxy.planner.outcome import Outcome, Traffic
from userproxy.planner.paths import to_host, to_pod
from userproxy.tests.services import cluster_ips

FRONTEND = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
CONTEXT = PlanContext(
    Node("here", "zone-a"), NodeNetwork("10.100.0.2"), Path.REDIRECT_TO_HOST, range(10400, 10500)
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
