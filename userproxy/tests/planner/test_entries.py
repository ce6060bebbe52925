"""Each way to reach a Service port: from where, under which policy, and what answers if nobody is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.network import NodeNetwork
from userproxy.model.service import (
    Entry,
    EntryKind,
    Path,
    PoolName,
    Protocol,
    ServicePort,
    ServicePortName,
    TrafficPolicy,
)
from userproxy.model.snapshot import Node
from userproxy.model.state import Drop, Frontend, Refuse, ToListener, ToPods
from userproxy.planner.context import PlanContext
from userproxy.planner.outcome import Outcome, Traffic, without_conflicts
from userproxy.planner.paths import PATHS

if TYPE_CHECKING:
    from userproxy.model.state import Target

CLUSTER, LOCAL = TrafficPolicy.CLUSTER, TrafficPolicy.LOCAL
WEB = ServicePortName("default", "web")
HOST, LOOPBACK = "10.100.0.2", "127.0.0.1"
NEAR, FAR = Address("10.0.1.2", 8080), Address("10.0.2.2", 8080)
ADDRESSES = {
    EntryKind.CLUSTER_IP: Address("10.3.0.1", 80),
    EntryKind.NODE_PORT: Address(HOST, 30080),
    EntryKind.EXTERNAL_IP: Address("192.0.2.7", 80),
    EntryKind.LOAD_BALANCER_IP: Address("192.0.2.8", 80),
}
PORTS = {PoolName.of(WEB, CLUSTER): 10400, PoolName.of(WEB, LOCAL): 10401}
LISTENERS = {pool.policy: Address(HOST, port) for pool, port in PORTS.items()}


def service(path: Path, internal: TrafficPolicy, external: TrafficPolicy, **fields: object) -> ServicePort:
    """A Service port with an entry of each kind."""
    addresses = ADDRESSES | {EntryKind.NODE_PORT: Address("0.0.0.0", 30080)}  # noqa: S104 - any address
    return ServicePort(
        name=WEB,
        protocol=Protocol.TCP,
        entries=tuple(Entry(kind, address) for kind, address in addresses.items()),
        internal_traffic_policy=internal,
        external_traffic_policy=external,
        path=path,
        **fields,  # type: ignore[arg-type]
    )


def outcome(made: ServicePort, *endpoints: Endpoint, closed: bool = True) -> Outcome:
    """What it comes to on host1."""
    assert made.path is not None
    network = NodeNetwork((HOST,), (HOST,), uplinks=("eth0",))
    context = PlanContext(
        Node("host1"), network, made.path, range(10400, 10410), closed=closed, fall_open=False
    )
    return PATHS[made.path].outcome_of(Traffic(made, endpoints, PORTS, context))


def answer(made: Outcome, kind: EntryKind, *, outside: bool) -> Target | None:
    """Where a packet to an entry goes that comes from outside, or from a pod or the node itself."""
    frontend = Frontend(Protocol.TCP, ADDRESSES[kind])
    if outside:
        from_outside = Frontend(Protocol.TCP, ADDRESSES[kind], outside=True)
        return made.captures.get(from_outside) or made.captures.get(frontend)
    return made.captures.get(frontend)


LOCAL_POD, REMOTE_POD = Endpoint(address=NEAR, node="host1"), Endpoint(address=FAR, node="host2")
EXTERNAL = [kind for kind in EntryKind if kind is not EntryKind.CLUSTER_IP]


@pytest.mark.parametrize("kind", list(EntryKind))
@pytest.mark.parametrize("outside", [False, True])
def test_under_the_policy_cluster_every_entry_leads_to_the_same_listener(
    kind: EntryKind, outside: bool
) -> None:
    made = outcome(service(Path.REDIRECT_TO_HOST, CLUSTER, CLUSTER), LOCAL_POD, REMOTE_POD)
    assert answer(made, kind, outside=outside) == ToListener(LISTENERS[CLUSTER])
    assert made.serves.keys() == {PoolName.of(WEB)}, "one listener is enough"


@pytest.mark.parametrize("kind", EXTERNAL)
def test_under_the_external_policy_local_outsiders_reach_pods_of_this_node_and_others_all(
    kind: EntryKind,
) -> None:
    made = outcome(service(Path.REDIRECT_TO_HOST, CLUSTER, LOCAL), LOCAL_POD, REMOTE_POD)
    assert answer(made, kind, outside=True) == ToListener(LISTENERS[LOCAL])
    assert answer(made, kind, outside=False) == ToListener(LISTENERS[CLUSTER])
    backends = {name.policy: [one.address for one in serve.backends] for name, serve in made.serves.items()}
    assert backends == {CLUSTER: [NEAR, FAR], LOCAL: [NEAR]}


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("kind", EXTERNAL)
def test_without_a_local_endpoint_outsiders_are_dropped_and_without_any_refused(
    path: Path, kind: EntryKind
) -> None:
    made = outcome(service(path, CLUSTER, LOCAL), REMOTE_POD)
    assert answer(made, kind, outside=True) == Drop()
    assert isinstance(answer(made, kind, outside=False), ToListener | ToPods)
    made = outcome(service(path, CLUSTER, LOCAL))
    assert answer(made, kind, outside=True) == answer(made, kind, outside=False) == Refuse()


@pytest.mark.parametrize("path", list(Path))
def test_the_internal_policy_is_that_of_cluster_ips_alone(path: Path) -> None:
    made = outcome(service(path, LOCAL, CLUSTER), REMOTE_POD)
    assert answer(made, EntryKind.CLUSTER_IP, outside=False) == Drop()
    assert all(answer(made, kind, outside=True) not in (Drop(), Refuse()) for kind in EXTERNAL)


def test_a_client_from_outside_is_masqueraded_where_a_pod_elsewhere_may_answer() -> None:
    made = outcome(service(Path.REDIRECT_TO_POD, CLUSTER, CLUSTER), LOCAL_POD, REMOTE_POD)
    assert all(answer(made, kind, outside=True) == ToPods((NEAR, FAR), masquerade=True) for kind in EXTERNAL)
    assert answer(made, EntryKind.CLUSTER_IP, outside=False) == ToPods((NEAR, FAR))
    made = outcome(service(Path.REDIRECT_TO_POD, CLUSTER, LOCAL), LOCAL_POD, REMOTE_POD)
    assert all(answer(made, kind, outside=True) == ToPods((NEAR,)) for kind in EXTERNAL)


def test_cluster_ips_that_are_open_to_the_outside_masquerade_its_clients_too() -> None:
    made = outcome(service(Path.REDIRECT_TO_POD, CLUSTER, CLUSTER), LOCAL_POD, closed=False)
    assert answer(made, EntryKind.CLUSTER_IP, outside=True) == ToPods((NEAR,), masquerade=True)


@pytest.mark.parametrize("path", list(Path))
def test_a_node_port_answers_on_loopback_by_a_listener(path: Path) -> None:
    made = outcome(service(path, CLUSTER, LOCAL), REMOTE_POD)
    frontend = Frontend(Protocol.TCP, Address(LOOPBACK, 30080))
    assert made.captures[frontend] == ToListener(LISTENERS[CLUSTER])
    assert Frontend(Protocol.TCP, LISTENERS[CLUSTER]) in made.guards
    assert msgspec.structs.replace(frontend, outside=True) not in made.captures, "nobody comes from outside"


def test_source_ranges_bind_the_load_balancer_ips_alone() -> None:
    ranges = ("192.0.2.0/24",)
    made = outcome(service(Path.REDIRECT_TO_HOST, CLUSTER, CLUSTER, source_ranges=ranges), LOCAL_POD)
    assert made.ranges == {Frontend(Protocol.TCP, ADDRESSES[EntryKind.LOAD_BALANCER_IP]): ranges}


@pytest.mark.parametrize("path", list(Path))
def test_a_node_in_the_ranges_may_ask_from_the_load_balancer_ip_which_it_may_have_itself(path: Path) -> None:
    ranges = ("10.100.0.0/24", "fd00::/64")
    made = outcome(service(path, CLUSTER, LOCAL, source_ranges=ranges), LOCAL_POD)
    balancer = ADDRESSES[EntryKind.LOAD_BALANCER_IP]
    assert made.ranges == {Frontend(Protocol.TCP, balancer): (*ranges, f"{balancer.ip}/32")}


@pytest.mark.parametrize("path", list(Path))
def test_affinity_reaches_whoever_picks(path: Path) -> None:
    made = outcome(service(path, CLUSTER, CLUSTER, affinity=60.0), LOCAL_POD)
    picks = [serve.affinity for serve in made.serves.values()]
    picks += [target.affinity for target in made.captures.values() if isinstance(target, ToPods)]
    assert picks
    assert set(picks) == {60.0}


@pytest.mark.parametrize("path", list(Path))
def test_who_loses_an_address_loses_it_for_clients_from_outside_too(path: Path) -> None:
    first = outcome(service(path, CLUSTER, CLUSTER), LOCAL_POD)
    clash = ADDRESSES[EntryKind.NODE_PORT]
    other = msgspec.structs.replace(
        service(path, CLUSTER, LOCAL, source_ranges=("192.0.2.0/24",)),
        name=ServicePortName("default", "other"),
        entries=(Entry(EntryKind.LOAD_BALANCER_IP, clash),),
    )
    kept, lost = without_conflicts([first, outcome(other, REMOTE_POD)])
    assert kept is first
    assert not any((lost.captures, lost.pools, lost.ranges))
    (conflict,) = (problem for problem in lost.problems if problem.reason == "PortConflict")
    assert conflict.message.startswith(f"{clash}/TCP belongs to default/web")


def test_pods_are_watched_as_long_as_they_may_have_connections_that_the_kernel_carries() -> None:
    unready = msgspec.structs.replace(REMOTE_POD, ready=False, serving=False)
    made = outcome(service(Path.REDIRECT_TO_POD, CLUSTER, LOCAL), LOCAL_POD, unready)
    assert made.pods == (NEAR.ip, FAR.ip)
    assert outcome(service(Path.REDIRECT_TO_HOST, CLUSTER, LOCAL), LOCAL_POD).pods == (), "we are the client"
