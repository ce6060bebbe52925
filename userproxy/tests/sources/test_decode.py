"""What becomes of a Service and of an EndpointSlice, field by field."""

from __future__ import annotations

import time
from typing import Any

import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Entry, EntryKind, Path, Protocol, ServicePortName, TrafficPolicy
from userproxy.sources.api import DecodeError
from userproxy.sources.decode import Scope
from userproxy.tests.sources.objects import (
    SERVICE_IP,
    decoded_service,
    decoded_slice,
    endpoint_slice,
    service,
)

HTTP = ServicePortName("default", "server-service", "http")
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"


def endpoints_of(manifest: dict[str, Any], port: ServicePortName = HTTP) -> tuple[Endpoint, ...]:
    return decoded_slice(manifest).endpoints.get(port, ())


def test_a_service_port_has_every_cluster_ip_as_frontend() -> None:
    (port,) = decoded_service(service(clusterIPs=[SERVICE_IP, "FD00::1:0"])).ports
    assert port.name == HTTP
    assert port.protocol is Protocol.TCP
    assert port.cluster_ips == (Address(SERVICE_IP, 80), Address("fd00::1:0", 80))
    assert port.internal_traffic_policy is port.external_traffic_policy is TrafficPolicy.CLUSTER
    assert port.path is None


def test_the_only_port_of_a_service_needs_no_name() -> None:
    (port,) = decoded_service(service(ports=[{"port": 53, "protocol": "UDP"}])).ports
    assert (str(port.name), port.protocol) == ("default/server-service", Protocol.UDP)


def test_every_way_to_reach_a_service_is_an_entry() -> None:
    manifest = service(
        type="LoadBalancer",
        clusterIPs=[SERVICE_IP, "fd00::1"],
        ports=[{"port": 80, "nodePort": 30080}],
        externalIPs=["192.0.2.7"],
    )
    ingress = [
        {"ip": "192.0.2.8", "ipMode": "VIP"},
        {"ip": "192.0.2.9", "ipMode": "Proxy"},
        {"ip": "192.0.2.10", "ipMode": "another, of which nothing is known"},
        {"hostname": "lb.example"},
    ]
    manifest["status"] = {"loadBalancer": {"ingress": ingress}}
    decoded = decoded_service(manifest)
    (port,) = decoded.ports
    assert [(entry.kind.value, str(entry.address)) for entry in port.entries] == [
        ("cluster-ip", f"{SERVICE_IP}:80"),
        ("cluster-ip", "[fd00::1]:80"),
        ("node-port", "0.0.0.0:30080"),
        ("node-port", "[::]:30080"),
        ("load-balancer-ip", "192.0.2.8:80"),
        ("external-ip", "192.0.2.7:80"),
    ]
    assert decoded.problems == ()


def test_an_address_that_nobody_can_be_sent_to_is_told_and_takes_no_other_down() -> None:
    ports = [{"port": 80, "nodePort": 99999}]
    decoded = decoded_service(service(externalIPs=["127.0.0.1", "nonsense", "192.0.2.7"], ports=ports))
    assert [str(entry.address) for entry in decoded.ports[0].entries] == [f"{SERVICE_IP}:80", "192.0.2.7:80"]
    assert [problem.reason for problem in decoded.problems] == ["BadAddress", "BadAddress", "BadNodePort"]
    assert "spec.externalIPs[0]" in decoded.problems[0].message


def affinity(**spec: Any) -> tuple[float | None, list[str]]:  # noqa: ANN401 - any JSON
    decoded = decoded_service(service(**spec))
    return decoded.ports[0].affinity, [problem.reason for problem in decoded.problems]


def test_session_affinity_has_its_timeout() -> None:
    assert affinity() == (None, [])
    assert affinity(sessionAffinity="ClientIP") == (10800.0, []), "the API's default, if nobody applied it"
    config = {"clientIP": {"timeoutSeconds": 7}}
    assert affinity(sessionAffinity="ClientIP", sessionAffinityConfig=config) == (7.0, [])
    config = {"clientIP": {"timeoutSeconds": 0}}
    wrong = affinity(sessionAffinity="ClientIP", sessionAffinityConfig=config)
    assert wrong == (10800.0, ["BadSessionAffinity"])
    assert affinity(sessionAffinity="Cookie") == (None, ["BadSessionAffinity"])


def ranges(*given: str, **metadata: Any) -> tuple[tuple[str, ...], list[str]]:  # noqa: ANN401 - likewise
    decoded = decoded_service(service(loadBalancerSourceRanges=list(given), metadata=metadata))
    return decoded.ports[0].source_ranges, [problem.reason for problem in decoded.problems]


def test_source_ranges_are_networks_and_what_is_none_lets_nobody_in() -> None:
    assert ranges() == ((), [])
    assert ranges("192.0.2.1/24", " 10.0.0.0/8 ") == (("10.0.0.0/8", "192.0.2.0/24"), [])
    annotation = {"service.beta.kubernetes.io/load-balancer-source-ranges": "192.0.2.0/24, 10.0.0.0/8"}
    assert ranges(annotations=annotation) == (("10.0.0.0/8", "192.0.2.0/24"), [])
    assert ranges("10.0.0.0/8", "everyone") == (("10.0.0.0/8",), ["BadSourceRange"])
    assert ranges("everyone") == (("255.255.255.255/32",), ["BadSourceRange"])


@pytest.mark.parametrize(("policy", "port"), [("Local", 32100), ("Cluster", None)])
def test_load_balancers_ask_for_local_endpoints_only_under_the_policy_local(
    policy: str, port: int | None
) -> None:
    manifest = service(type="LoadBalancer", externalTrafficPolicy=policy, healthCheckNodePort=32100)
    assert decoded_service(manifest).ports[0].health_check_port == port


@pytest.mark.parametrize("number", [-1, 99999])
def test_a_health_check_port_that_is_none_is_told_and_nobody_listens_there(number: int) -> None:
    manifest = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=number)
    decoded = decoded_service(manifest)
    assert decoded.ports[0].health_check_port is None
    (problem,) = decoded.problems
    assert problem.reason == "BadHealthCheckNodePort"
    assert f"spec.healthCheckNodePort: {number} is not 1 to 65535" in problem.message


def test_an_external_ip_that_the_load_balancer_has_is_the_load_balancer_s() -> None:
    manifest = service(externalIPs=["192.0.2.8"], loadBalancerSourceRanges=["203.0.113.0/24"])
    manifest["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}
    entries = decoded_service(manifest).ports[0].entries
    assert entries[1:] == (Entry(EntryKind.LOAD_BALANCER_IP, Address("192.0.2.8", 80)),)


def test_a_service_that_asks_for_a_cluster_ip_alone_has_no_problem() -> None:
    manifest = service(sessionAffinity="None", externalIPs=[])
    manifest["status"] = {"loadBalancer": {}}
    assert decoded_service(manifest).problems == ()


def test_traffic_policies_and_path_are_read() -> None:
    (port,) = decoded_service(
        service(
            internalTrafficPolicy="Local",
            externalTrafficPolicy="Local",
            metadata={"annotations": {"userproxy.dev/path": "redirect-to-pod"}},
        )
    ).ports
    assert port.internal_traffic_policy is port.external_traffic_policy is TrafficPolicy.LOCAL
    assert port.path is Path.REDIRECT_TO_POD


def test_a_bad_path_annotation_is_reported_and_the_service_is_served() -> None:
    decoded = decoded_service(service(metadata={"annotations": {"userproxy.dev/path": "teleport"}}))
    (problem,) = decoded.problems
    assert (problem.about, problem.reason) == ("default/server-service", "BadAnnotation")
    assert "'teleport' is not one of redirect-to-host, redirect-to-pod" in problem.message
    assert decoded.ports[0].path is None


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T01:00:00+01:00"])
def test_the_age_of_a_service_does_not_depend_on_the_time_zone(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert decoded_service(service(metadata={"creationTimestamp": text})).created == 1767225600.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "spec",
    [{"clusterIP": "None"}, {"clusterIP": ""}, {"clusterIP": None}, {"type": "ExternalName"}],
)
def test_headless_and_external_name_services_are_skipped(spec: dict[str, Any]) -> None:
    decoded = decoded_service(service(**spec))
    assert (decoded.ports, decoded.problems) == ((), ())


@pytest.mark.parametrize(
    ("labels", "proxy_name", "served"),
    [
        ({}, None, True),
        ({PROXY_NAME: "other"}, None, False),
        ({PROXY_NAME: ""}, None, False),
        ({HEADLESS: ""}, None, False),
        ({}, "ours", False),
        ({PROXY_NAME: "ours"}, "ours", True),
        ({PROXY_NAME: "other"}, "ours", False),
    ],
)
def test_a_service_is_served_by_the_proxy_that_its_label_names(
    labels: dict[str, str], proxy_name: str | None, *, served: bool
) -> None:
    assert bool(decoded_service(service(metadata={"labels": labels}), Scope(proxy_name)).ports) is served
    if labels:
        assert bool(decoded_slice(endpoint_slice(labels=labels), Scope(proxy_name)).endpoints) is served


def test_an_sctp_port_is_reported_and_the_others_are_served() -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": "SCTP"}]
    decoded = decoded_service(service(ports=ports))
    assert [str(port.name) for port in decoded.ports] == ["default/server-service:a"]
    (problem,) = decoded.problems
    assert (problem.about, problem.reason) == ("default/server-service:b", "ProtocolNotSupported")


def test_external_ips_can_be_switched_off_and_that_is_told() -> None:
    manifest = service(externalIPs=[f"192.0.2.{number}" for number in range(1, 8)])
    decoded = decoded_service(manifest, Scope(external_ips=False))
    assert [entry.kind.value for port in decoded.ports for entry in port.entries] == ["cluster-ip"]
    (problem,) = decoded.problems
    assert (problem.about, problem.reason) == ("default/server-service", "ExternalIPsOff")
    assert "192.0.2.1" in problem.message
    assert len(problem.message) < 200
    assert decoded_service(service(externalIPs=[]), Scope(external_ips=False)).problems == ()


@pytest.mark.parametrize(
    ("manifest", "field", "error"),
    [
        (service(metadata={"name": None}), "metadata.name", "is missing"),
        (service(metadata={"name": "a/b"}), "metadata.name", "'a/b' is not a name"),
        (service(metadata={"namespace": "A"}), "metadata.namespace", "'A' is not a name"),
        (service(clusterIP="10.3.241"), "spec.clusterIP", "'10.3.241' is not an IP address"),
        (service(clusterIPs=[SERVICE_IP, "x"]), "spec.clusterIPs[1]", "'x' is not an IP address"),
        (service(ports=[]), "spec.ports", "needs at least one port"),
        (service(ports=None), "spec.ports", "needs at least one port"),
        (service(ports=[{"port": "http"}]), "spec.ports[0].port", "expected a whole number, got a string"),
        (service(ports=[{"port": 0}]), "spec.ports[0].port", "0 is not 1 to 65535"),
        (service(ports=[{"port": 65536}]), "spec.ports[0].port", "65536 is not 1 to 65535"),
        (service(ports=[{}]), "spec.ports[0].port", "is missing"),
        (service(ports=[{"port": 1, "protocol": "QUIC"}]), "spec.ports[0].protocol", "not one of TCP, UDP"),
        (service(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name", "needs a name"),
        (service(ports=[{"name": "a", "port": 1}] * 2), "spec.ports[1]", "repeats the name 'a'"),
        (
            service(ports=[{"name": "a", "port": 1}, {"name": "b", "port": 1}]),
            "spec.ports[1]",
            "repeats the name 'b' or TCP port 1",
        ),
        (service(ports={"port": 1}), "spec.ports", "expected a list, got a mapping"),
        (service(internalTrafficPolicy="local"), "spec.internalTrafficPolicy", "not one of Cluster, Local"),
        (service(metadata={"creationTimestamp": "now"}), "metadata.creationTimestamp", "RFC3339"),
    ],
)
def test_a_service_that_cannot_be_meant_is_refused_by_field(
    manifest: dict[str, Any], field: str, error: str
) -> None:
    with pytest.raises(DecodeError) as failure:
        decoded_service(manifest)
    assert failure.value.field == field
    assert error in failure.value.error


def test_endpoints_stand_behind_the_port_of_the_same_name_sorted() -> None:
    manifest = endpoint_slice(
        "s",
        {"addresses": ["10.0.2.2"], "nodeName": "host2", "zone": "b"},
        {
            "addresses": ["10.0.1.2"],
            "hints": {"forZones": [{"name": "b"}, {"name": "a"}], "forNodes": [{"name": "host1"}]},
        },
        ports=[{"name": "http", "port": 8080}, {"port": 9090}],
    )
    assert endpoints_of(manifest) == (
        Endpoint(address=Address("10.0.1.2", 8080), hint_zones=("a", "b"), hint_nodes=("host1",)),
        Endpoint(address=Address("10.0.2.2", 8080), node="host2", zone="b"),
    )
    unnamed = endpoints_of(manifest, ServicePortName("default", "server-service"))
    assert [str(endpoint.address) for endpoint in unnamed] == ["10.0.1.2:9090", "10.0.2.2:9090"]


@pytest.mark.parametrize(
    ("conditions", "ready", "serving", "terminating"),
    [
        (None, True, True, False),
        ({}, True, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, True, False),
        ({"ready": False}, False, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True, True),
        ({"ready": True, "serving": False}, True, False, False),
    ],
)
def test_conditions_that_are_not_given_have_the_defaults_of_the_api(
    conditions: dict[str, Any] | None, *, ready: bool, serving: bool, terminating: bool
) -> None:
    (endpoint,) = endpoints_of(endpoint_slice("s", {"addresses": ["10.0.1.2"], "conditions": conditions}))
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (ready, serving, terminating)


@pytest.mark.parametrize(
    "addresses", [None, [], [""], ["10.0.1"], ["10.0.1.256"], ["fd00::1"], ["10.0.1.2\n"], ["010.0.1.2"]]
)
def test_an_endpoint_without_a_usable_address_is_left_out_and_reported(addresses: list[str] | None) -> None:
    decoded = decoded_slice(endpoint_slice("s", {"addresses": addresses}, {"addresses": ["10.0.2.2"]}))
    assert [str(endpoint.address) for endpoint in decoded.endpoints[HTTP]] == ["10.0.2.2:8080"]
    (problem,) = decoded.problems
    assert (problem.about, problem.reason) == ("default/server-service", "BadEndpoint")
    assert "EndpointSlice default/s: endpoints[0]" in problem.message


@pytest.mark.parametrize("number", [None, 0, -1, 65536])
def test_a_slice_port_without_a_usable_number_is_left_out_and_reported(number: int | None) -> None:
    ports = [{"name": "http", "port": 8080}, {"name": "bad", "port": number}]
    decoded = decoded_slice(endpoint_slice(ports=ports))
    assert list(decoded.endpoints) == [HTTP]
    (problem,) = decoded.problems
    assert problem.reason == "BadEndpointPort"
    assert "ports[1].port" in problem.message


def test_many_bad_endpoints_make_one_problem() -> None:
    (problem,) = decoded_slice(endpoint_slice("s", *[{"addresses": [""]}] * 9)).problems
    assert "endpoints[0] has no address (and 8 more)" in problem.message


def test_only_the_first_of_an_endpoints_addresses_is_used_and_the_rest_is_reported() -> None:
    decoded = decoded_slice(endpoint_slice("s", {"addresses": ["10.0.1.2", "10.0.2.2"]}))
    assert [str(endpoint.address) for endpoint in decoded.endpoints[HTTP]] == ["10.0.1.2:8080"]
    assert [problem.reason for problem in decoded.problems] == ["ExtraAddresses"]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("::ffff:10.0.1.2", "'::ffff:10.0.1.2' is an IPv4 address in the form of IPv6: write 10.0.1.2"),
        ("fe80::1", "fe80::1 is valid on one link alone"),
        ("FEBF::1", "febf::1 is valid on one link alone"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone, which no Service or endpoint may have"),
        ("10.0.1.2", "10.0.1.2 is not IPv6"),
    ],
)
def test_an_ipv6_endpoint_that_no_packet_can_be_sent_to_says_why(address: str, why: str) -> None:
    decoded = decoded_slice(
        endpoint_slice("s", {"addresses": [address]}, {"addresses": ["fec0::2"]}, addressType="IPv6")
    )
    assert [endpoint.address.ip for endpoint in decoded.endpoints[HTTP]] == ["fec0::2"]
    (problem,) = decoded.problems
    assert problem.reason == "BadEndpoint"
    assert f"endpoints[0] {why}" in problem.message


@pytest.mark.parametrize("ip", ["::ffff:10.3.0.1", "fe80::1", "fe80::1%eth0"])
def test_a_cluster_ip_that_no_packet_has_is_refused_by_name(ip: str) -> None:
    with pytest.raises(
        DecodeError, match=r"IPv4 address in the form of IPv6|on one link alone|has a zone"
    ) as bad:
        decoded_service(service(clusterIPs=[SERVICE_IP, ip]))
    assert bad.value.field == "spec.clusterIPs[1]"


def test_an_address_of_a_family_that_the_service_lacks_is_left_out_and_told() -> None:
    manifest = service(type="LoadBalancer", externalIPs=["192.0.2.7", "2001:db8::7"])
    manifest["status"] = {"loadBalancer": {"ingress": [{"ip": "2001:db8::8"}, {"ip": "192.0.2.8"}]}}
    decoded = decoded_service(manifest)
    assert [entry.address.ip for entry in decoded.ports[0].entries] == [SERVICE_IP, "192.0.2.8", "192.0.2.7"]
    assert [problem.reason for problem in decoded.problems] == ["IPFamilyMismatch"] * 2
    assert "2001:db8::7, as external-ip, is IPv6, and the Service has no IPv6 cluster IP" in str(
        decoded.problems[1]
    )


def test_ipv6_slices_are_read_and_fqdn_slices_are_ignored() -> None:
    ipv6 = endpoint_slice("s", {"addresses": ["FD00::1"]}, addressType="IPv6")
    assert [str(endpoint.address) for endpoint in endpoints_of(ipv6)] == ["[fd00::1]:8080"]
    fqdn = decoded_slice(endpoint_slice("s", {"addresses": ["example.com"]}, addressType="FQDN"))
    assert (fqdn.endpoints, fqdn.problems) == ({}, ())


def test_a_slice_of_no_service_is_reported() -> None:
    (problem,) = decoded_slice(endpoint_slice(service_name="")).problems
    assert problem.reason == "NoServiceName"


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (endpoint_slice(addressType=None), "addressType"),
        (endpoint_slice(addressType="IPv5"), "addressType"),
        (endpoint_slice(service_name="a/b"), "metadata.labels[kubernetes.io/service-name]"),
        (endpoint_slice(ports=[{"name": "a", "port": 1}] * 2), "ports[1].name"),
        (endpoint_slice(ports=[{"name": "A", "port": 1}]), "ports[0].name"),
        (endpoint_slice("s", {"addresses": [7]}), "endpoints[0].addresses[0]"),
        (endpoint_slice("s", {"addresses": "10.0.1.2"}), "endpoints[0].addresses"),
        (
            endpoint_slice("s", {"addresses": ["10.0.1.2"], "conditions": {"ready": "yes"}}),
            "endpoints[0].conditions.ready",
        ),
    ],
)
def test_a_slice_that_cannot_be_meant_is_refused_by_field(manifest: dict[str, Any], field: str) -> None:
    with pytest.raises(DecodeError) as failure:
        decoded_slice(manifest)
    assert failure.value.field == field
