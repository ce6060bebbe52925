"""The lab is the deployment that the README tables: its addresses, its routes' networks, its manifests."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml

from userproxy.lab import topology
from userproxy.lab.topology import REFERENCE
from userproxy.model.address import Address


def objects() -> list[dict[str, Any]]:
    return [each for text in topology.manifests(REFERENCE).values() for each in yaml.safe_load_all(text)]


@pytest.mark.parametrize(
    ("name", "ip", "port", "network"),
    [
        ("server1", "10.0.1.2", 8080, "10.0.0.0/14"),
        ("server2", "10.0.2.2", 8080, "10.0.0.0/14"),
        ("client", "10.0.1.3", None, "10.0.0.0/14"),
    ],
)
def test_the_pods_are_those_of_the_table(name: str, ip: str, port: int | None, network: str) -> None:
    pod = next(pod for pod in REFERENCE.pods if pod.name == name)
    assert (pod.ip, pod.port) == (ip, port)
    assert ipaddress.ip_address(pod.ip) in ipaddress.ip_network(network)
    assert ipaddress.ip_address(pod.ip) in ipaddress.ip_network(REFERENCE.host_of(pod).pod_network)


def test_the_hosts_are_those_of_the_table() -> None:
    assert {host.name: host.ip for host in REFERENCE.hosts} == {"host1": "10.100.0.2", "host2": "10.100.0.3"}
    for host in REFERENCE.hosts:
        assert ipaddress.ip_address(host.ip) in ipaddress.ip_network(REFERENCE.host_network)


def test_the_service_is_that_of_the_table() -> None:
    (service,) = REFERENCE.services
    assert str(service.name) == "default/server-service"
    assert service.frontend == Address("10.3.241.152", 80)
    assert ipaddress.ip_address(service.frontend.ip) in ipaddress.ip_network(REFERENCE.service_network)


def test_an_unknown_host_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'client' is no host of the lab; there are host1, host2"):
        REFERENCE.host("client")


def test_the_manifests_say_where_the_service_is_and_which_pods_serve_it() -> None:
    service, endpoints = objects()
    assert service["spec"]["clusterIP"] == "10.3.241.152"
    assert service["spec"]["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 8080}]
    assert endpoints["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
    assert endpoints["ports"] == [{"name": "", "protocol": "TCP", "port": 8080}]
    assert [(each["addresses"], each["nodeName"]) for each in endpoints["endpoints"]] == [
        (["10.0.1.2"], "host1"),
        (["10.0.2.2"], "host2"),
    ]
