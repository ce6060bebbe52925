"""The lab is the deployment that the README tables: its addresses, its routes' networks, its manifests."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml

from userproxy.lab import topology
from userproxy.lab.topology import KUBE_DNS, REFERENCE, REFERENCE_WITH_DNS
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
    assert str(service) == "default/server-service"
    assert service.frontend == Address("10.3.241.152", 80)
    assert ipaddress.ip_address(service.frontend.ip) in ipaddress.ip_network(REFERENCE.service_network)


def test_cluster_dns_is_a_service_of_its_own_beside_the_reference_deployment() -> None:
    assert REFERENCE.dns is None
    assert REFERENCE_WITH_DNS.dns is KUBE_DNS
    assert REFERENCE_WITH_DNS.services == (*REFERENCE.services, KUBE_DNS)
    assert [str(name) for name in KUBE_DNS.port_names] == [
        "kube-system/kube-dns:dns",
        "kube-system/kube-dns:dns-tcp",
    ]
    assert KUBE_DNS.ip == str(ipaddress.ip_network(REFERENCE.service_network)[10])


def test_each_host_has_a_name_server_of_its_own() -> None:
    hosts = [REFERENCE_WITH_DNS.host_of(pod) for pod in KUBE_DNS.backends]
    assert hosts == list(REFERENCE_WITH_DNS.hosts)
    for host, pod in zip(hosts, KUBE_DNS.backends, strict=True):
        assert ipaddress.ip_address(pod.ip) in ipaddress.ip_network(host.pod_network)
    every_ip = [pod.ip for pod in REFERENCE_WITH_DNS.pods]
    assert len(set(every_ip)) == len(every_ip)


def test_the_manifest_of_cluster_dns_has_both_of_its_ports() -> None:
    service, endpoints = topology.api_objects(REFERENCE_WITH_DNS, KUBE_DNS)
    assert service["metadata"] == {"namespace": "kube-system", "name": "kube-dns"}
    assert service["spec"]["ports"] == [
        {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
        {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
    ]
    assert [each["addresses"] for each in endpoints["endpoints"]] == [["10.0.1.4"], ["10.0.2.4"]]


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
