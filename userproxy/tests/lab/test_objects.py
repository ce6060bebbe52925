"""API objects are made in the shape that the API server prints, and say what was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from userproxy.lab import objects
from userproxy.lab.objects import Port, endpoint, endpoint_slice, node, service

if TYPE_CHECKING:
    from collections.abc import Sequence

DNS = [Port(53, 5353, "dns"), Port(53, 5353, "dns-udp", "UDP"), Port(9, name="sctp", protocol="SCTP")]


@pytest.mark.parametrize(
    ("ips", "families", "policy"),
    [
        (["10.3.240.1"], ["IPv4"], "SingleStack"),
        (["fd00::1"], ["IPv6"], "SingleStack"),
        (["10.3.240.1", "fd00::1"], ["IPv4", "IPv6"], "RequireDualStack"),
    ],
)
def test_the_families_follow_from_the_addresses(ips: Sequence[str], families: list[str], policy: str) -> None:
    spec = service("web", ips)["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == (ips[0], ips)
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (families, policy)


def test_a_service_without_an_address_has_no_family() -> None:
    assert service("web", ["None"])["spec"] == {"clusterIP": "None", "clusterIPs": ["None"]}
    external = service("web", type="ExternalName", externalName="example.com")
    assert external["spec"] == {"type": "ExternalName", "externalName": "example.com"}
    assert "status" not in external


def test_what_is_said_of_a_service_is_in_it() -> None:
    made = service(
        "web",
        ["10.3.240.1"],
        [Port(80, 8080, node_port=30080)],
        metadata={"annotations": {"a": "b"}, "namespace": "other"},
        ingress=[{"ip": "203.0.113.5", "ipMode": "Proxy"}],
        type="LoadBalancer",
        externalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 30}},
        ipFamilyPolicy="PreferDualStack",
    )
    assert made["metadata"] == {"namespace": "other", "name": "web", "annotations": {"a": "b"}}
    spec = made["spec"]
    assert spec["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080}]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] == 30
    assert spec["ipFamilyPolicy"] == "PreferDualStack"
    assert made["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.5", "ipMode": "Proxy"}]


def test_a_service_and_its_slices_have_the_same_ports() -> None:
    ports = service("dns", ["10.3.240.1"], DNS)["spec"]["ports"]
    behind = endpoint_slice("dns-1", "dns", DNS)["ports"]
    assert [(each["name"], each["protocol"], each["targetPort"]) for each in ports] == [
        (each["name"], each["protocol"], each["port"]) for each in behind
    ]
    assert [each["port"] for each in behind] == [5353, 5353, 9]


def test_an_endpoint_says_only_what_is_known_of_it() -> None:
    assert endpoint("10.0.1.2", conditions={}) == {"addresses": ["10.0.1.2"], "conditions": {}}
    assert endpoint(
        "10.0.1.2", "host1", objects.TERMINATING, zone="a", for_zones="ab", for_nodes=["host1"]
    ) == {
        "addresses": ["10.0.1.2"],
        "conditions": {"ready": False, "serving": True, "terminating": True},
        "nodeName": "host1",
        "zone": "a",
        "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "host1"}]},
    }


def test_a_slice_belongs_to_its_service_and_has_the_family_of_its_endpoints() -> None:
    made = endpoint_slice("web-6", "web", endpoints=[endpoint("fd00::2")], metadata={"labels": {"a": "b"}})
    assert made["metadata"]["labels"] == {"kubernetes.io/service-name": "web", "a": "b"}
    assert made["addressType"] == "IPv6"
    assert endpoint_slice("web-1", "web")["addressType"] == "IPv4"


def test_a_node_is_in_no_namespace() -> None:
    assert node("host1")["metadata"] == {"name": "host1"}
    labels = {"topology.kubernetes.io/zone": "zone-a", "a": "b"}
    assert node("host1", "zone-a", metadata={"labels": {"a": "b"}})["metadata"]["labels"] == labels


def test_a_manifest_holds_every_object() -> None:
    several = [service("web", ["10.3.240.1"]), node("host1")]
    assert list(yaml.safe_load_all(objects.manifest(several))) == several
    assert json.loads(json.dumps(objects.listed(iter(several))))["items"] == several
