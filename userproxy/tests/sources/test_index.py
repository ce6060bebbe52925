"""The Snapshot that Services and EndpointSlices make, in whatever order they come."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.address import Address, IpFamily
from userproxy.model.service import ServicePortName
from userproxy.sources.decode import Kind, ObjectKey
from userproxy.sources.index import ObjectIndex
from userproxy.tests.sources.objects import (
    SERVICE_IP,
    decoded_service,
    decoded_slice,
    endpoint_slice,
    service,
)

if TYPE_CHECKING:
    from userproxy.model.snapshot import Snapshot
    from userproxy.sources.decode import DecodedObject

HTTP = ServicePortName("default", "server-service", "http")
SERVICE_KEY = ObjectKey(Kind.SERVICE, "default", "server-service")


def index_of(*objects: DecodedObject) -> ObjectIndex:
    index = ObjectIndex()
    for rank, item in enumerate(objects):
        index.put(item, ("file", rank))
    return index


def claimant(name: str, ip: str = SERVICE_IP, **metadata: Any) -> DecodedObject:  # noqa: ANN401 - any JSON
    return decoded_service(service(name, clusterIP=ip, metadata=metadata))


def owners(snapshot: Snapshot) -> list[str]:
    return sorted(name.service for name in snapshot.services)


def addresses(snapshot: Snapshot) -> list[str]:
    return [str(endpoint.address) for endpoint in snapshot.endpoints.get(HTTP, ())]


def test_slices_may_come_before_their_service() -> None:
    index = index_of(decoded_slice(endpoint_slice()))
    index.snapshot()
    index.put(decoded_service(service()))
    snapshot = index.snapshot()
    assert list(snapshot.services) == [HTTP]
    assert addresses(snapshot) == ["10.0.1.2:8080", "10.0.2.2:8080"]


def test_a_service_deleted_and_created_again_has_its_endpoints_at_once() -> None:
    index = index_of(decoded_service(service()), decoded_slice(endpoint_slice()))
    index.snapshot()
    index.remove(SERVICE_KEY)
    assert index.snapshot().services == {}
    index.put(decoded_service(service()))
    assert addresses(index.snapshot()) == ["10.0.1.2:8080", "10.0.2.2:8080"]


def test_a_service_turned_headless_is_removed_and_comes_back() -> None:
    index = index_of(decoded_service(service()))
    index.snapshot()
    index.put(decoded_service(service(clusterIP="None")))
    assert index.snapshot().services == {}
    index.put(decoded_service(service()))
    assert list(index.snapshot().services) == [HTTP]


def test_a_port_that_a_service_no_longer_has_goes() -> None:
    index = index_of(
        decoded_service(service(ports=[{"name": "http", "port": 80}, {"name": "b", "port": 81}]))
    )
    assert len(index.snapshot().services) == 2
    index.put(decoded_service(service()))
    assert list(index.snapshot().services) == [HTTP]


def test_the_slices_of_a_service_are_merged_and_lose_only_their_own() -> None:
    second = decoded_slice(endpoint_slice("server-service-2", {"addresses": ["10.0.1.9"]}))
    index = index_of(decoded_slice(endpoint_slice()), second)
    assert addresses(index.snapshot()) == ["10.0.1.2:8080", "10.0.1.9:8080", "10.0.2.2:8080"]
    index.remove(second.key)
    assert addresses(index.snapshot()) == ["10.0.1.2:8080", "10.0.2.2:8080"]


def test_an_address_in_two_slices_counts_once_and_the_ready_one_is_kept() -> None:
    unready = {"addresses": ["10.0.1.2"], "conditions": {"ready": False}}
    for first, second in (("a", "b"), ("b", "a")):
        index = index_of(
            decoded_slice(endpoint_slice(first, unready)),
            decoded_slice(endpoint_slice(second, {"addresses": ["10.0.1.2"]})),
        )
        assert [endpoint.ready for endpoint in index.snapshot().endpoints[HTTP]] == [True]


def test_the_older_of_two_services_keeps_the_address() -> None:
    index = index_of(
        claimant("a", creationTimestamp="2026-02-01T00:00:00Z"),
        claimant("b", creationTimestamp="2026-01-01T00:00:00Z"),
    )
    snapshot = index.snapshot()
    assert owners(snapshot) == ["b"]
    (problem,) = snapshot.problems
    assert (problem.about, problem.reason) == ("default/a:http", "PortConflict")
    assert f"{SERVICE_IP}:80/TCP belongs to Service default/b" in problem.message
    assert "Service default/a" in problem.message


def test_a_node_port_that_two_services_have_is_named_as_such() -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    ips = {"a": "10.3.0.1", "b": "10.3.0.2"}
    services = (decoded_service(service(name, clusterIP=ip, ports=ports)) for name, ip in ips.items())
    index = index_of(*services)
    (problem,) = index.snapshot().problems
    said = "node port 30080/TCP belongs to Service default/a: give Service default/b another one"
    assert problem.message == said


def test_without_a_creation_time_the_first_in_the_file_keeps_the_address() -> None:
    assert owners(index_of(claimant("b"), claimant("a")).snapshot()) == ["b"]
    dated = claimant("z", creationTimestamp="2026-01-01T00:00:00")
    assert owners(index_of(claimant("b"), dated).snapshot()) == ["z"]


def test_the_loser_gets_the_address_as_soon_as_the_winner_goes_or_moves() -> None:
    index = index_of(claimant("a"), claimant("b"))
    index.snapshot()
    index.put(claimant("a", "10.3.240.9"), ("file", 0))
    snapshot = index.snapshot()
    assert owners(snapshot) == ["a", "b"]
    assert snapshot.problems == ()
    index.put(claimant("a"), ("file", 0))
    assert owners(index.snapshot()) == ["a"]
    index.remove(ObjectKey(Kind.SERVICE, "default", "a"))
    snapshot = index.snapshot()
    assert owners(snapshot) == ["b"]
    assert snapshot.problems == ()


def test_a_conflict_on_one_address_leaves_the_others() -> None:
    dual = decoded_service(service("dual", clusterIPs=[SERVICE_IP, "fd00::1"]))
    snapshot = index_of(claimant("a"), dual).snapshot()
    assert snapshot.services[ServicePortName("default", "dual", "http")].cluster_ips == (
        Address("fd00::1", 80),
    )


def test_tcp_and_udp_share_a_port_without_conflict() -> None:
    udp = decoded_service(service("udp", ports=[{"port": 80, "protocol": "UDP"}]))
    assert index_of(claimant("a"), udp).snapshot().problems == ()


def test_nothing_changed_means_the_very_same_snapshot() -> None:
    index = index_of(decoded_service(service()), decoded_slice(endpoint_slice()))
    snapshot = index.snapshot()
    index.put(decoded_service(service()), ("file", 0))
    index.put(decoded_slice(copy.deepcopy(endpoint_slice())), ("file", 1))
    assert index.snapshot() is snapshot


def test_a_change_keeps_the_identity_of_everything_else() -> None:
    other = ServicePortName("default", "other", "http")
    index = index_of(
        decoded_service(service()),
        decoded_service(service("other", clusterIP="10.3.240.9")),
        decoded_slice(endpoint_slice()),
        decoded_slice(endpoint_slice("other-1", service_name="other")),
    )
    before = index.snapshot()
    index.put(decoded_slice(endpoint_slice("server-service-1", {"addresses": ["10.0.1.2"]})))
    after = index.snapshot()
    assert after.services is before.services
    assert after.endpoints[other] is before.endpoints[other]
    assert len(before.endpoints[HTTP]) == 2
    assert len(after.endpoints[HTTP]) == 1


def test_a_change_undone_before_anyone_looked_was_none() -> None:
    index = index_of(decoded_service(service()))
    snapshot = index.snapshot()
    index.remove(SERVICE_KEY)
    index.put(decoded_service(service()), ("file", 0))
    assert index.snapshot() is snapshot


POOL = [
    *(decoded_service(service(name, clusterIP=ip)) for name in "abc" for ip in (SERVICE_IP, "10.3.240.1")),
    *(
        decoded_slice(
            endpoint_slice(f"{service_name}-{n}", {"addresses": [f"10.0.0.{n}"]}, service_name=service_name)
        )
        for service_name in "ab"
        for n in (1, 2)
    ),
]


@given(st.lists(st.tuples(st.sampled_from(POOL), st.booleans(), st.booleans())))
def test_the_end_of_any_sequence_is_what_the_objects_left_would_make(
    steps: list[tuple[DecodedObject, bool, bool]],
) -> None:
    index, left = ObjectIndex(), dict[ObjectKey, Any]()
    for item, put, look in steps:
        if put:
            index.put(item)
            left[item.key] = item
        else:
            index.remove(item.key)
            left.pop(item.key, None)
        if look:
            index.snapshot()
    fresh = ObjectIndex()
    for item in left.values():
        fresh.put(item)
    assert index.snapshot() == fresh.snapshot()
    assert index.keys() == left.keys()


def test_when_a_change_was_made_goes_with_the_snapshot_that_has_it() -> None:
    def slice_at(ip: str, when: object) -> DecodedObject:
        annotations = {"endpoints.kubernetes.io/last-change-trigger-time": when}
        made = endpoint_slice("server-service-1", {"addresses": [ip]})
        return decoded_slice({**made, "metadata": {**made["metadata"], "annotations": annotations}})

    index = index_of(decoded_service(service()), slice_at("10.0.1.2", "2026-11-27T10:00:00.5Z"))
    first = index.snapshot()
    assert first.triggers == ((IpFamily.IPV4, 1795773600.5),)
    assert index.snapshot() is first
    index.put(slice_at("10.0.1.3", "2026-11-27T10:00:01Z"))
    index.put(slice_at("10.0.1.4", "2026-11-27T10:00:02.123456789Z"))
    assert [round(when) for _, when in index.snapshot().triggers] == [1795773601, 1795773602]
    for nonsense in ("yesterday", None, 7, ""):
        index.put(slice_at("10.0.1.5", nonsense))
    assert index.snapshot().triggers == ()
