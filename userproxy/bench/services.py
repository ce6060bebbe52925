"""The Services that every path serves, as manifests and as API objects. Pure.

All paths serve the same ones: the labs are twins, so that the same addresses mean the same pods in each.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from userproxy.lab import objects, topology
from userproxy.lab.objects import Object, Port, ServiceSpec
from userproxy.lab.pods import nameserver
from userproxy.lab.topology import Deployment, Host, Pod
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.lab.objects import Ingress

HTTP_PORT, BULK_PORT, DNS_PORT, ECHO_PORT = 8080, 5201, 53, 7000
SERVICE_NETWORK = "10.3.0.0/16"

# Pods without a port: the lab then starts no web server of its own in them.
SERVER1 = Pod(name="server1", ip="10.0.1.2")
SERVER2 = Pod(name="server2", ip="10.0.1.4")
CLIENT = Pod(name="client", ip="10.0.1.3")
HOST = Host(name="host1", ip="10.100.0.2", pod_network="10.0.1.0/24", pods=(SERVER1, SERVER2, CLIENT))

TWIN = Deployment(
    gateway="gateway",
    gateway_ip="10.100.0.1",
    host_network="10.100.0.0/24",
    service_network=SERVICE_NETWORK,
    hosts=(HOST,),
    services=(),
)
"""What each path has for itself: the reference deployment with both of its pods on the client's own host,
so that as little as possible beside the path itself is measured."""

_FILLERS_FROM = int(ipaddress.IPv4Address("10.3.1.0"))
_CHANGES_FROM = int(ipaddress.IPv4Address("10.3.128.0"))
MAX_SERVICES = _CHANGES_FROM - _FILLERS_FROM


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A Service with one port.

    Attributes:
        name: in the namespace `default`.
        frontend: its Service IP and port.
        target: the port of its pods.
        pods: behind it.
        protocol: TCP or UDP.
        node_port: 0 for none.
        ingress: IPs of its load balancer.
        spec: what else its spec says.
    """

    name: str
    frontend: Address
    target: int
    pods: tuple[Pod, ...]
    protocol: str = "TCP"
    node_port: int = 0
    ingress: tuple[str, ...] = ()
    spec: ServiceSpec = {}

    @property
    def port(self) -> Port:
        """Its one port, as an API object has it."""
        return Port(self.frontend.port, self.target, protocol=self.protocol, node_port=self.node_port)

    @property
    def addresses(self) -> list[Address]:
        """Where it answers, the Service IP first."""
        ips = (self.frontend.ip, *self.spec.get("externalIPs", ()), *self.ingress)
        at_node = [Address(HOST.ip, self.node_port)] if self.node_port else []
        return [*(Address(ip, self.frontend.port) for ip in ips), *at_node]


HTTP = Service(
    name="bench-http", frontend=Address("10.3.241.152", 80), target=HTTP_PORT, pods=(SERVER1, SERVER2)
)
BULK = Service(
    # One pod: iperf3 needs its control and its data connections to arrive at the same server.
    name="bench-bulk",
    frontend=Address("10.3.241.153", BULK_PORT),
    target=BULK_PORT,
    pods=(SERVER1,),
)
DNS = Service(
    name="bench-dns",
    frontend=Address("10.3.241.154", DNS_PORT),
    target=DNS_PORT,
    pods=(SERVER1, SERVER2),
    protocol="UDP",
)
ECHO = Service(
    name="bench-echo",
    frontend=Address("10.3.241.155", ECHO_PORT),
    target=ECHO_PORT,
    pods=(SERVER1, SERVER2),
    protocol="UDP",
)
MEASURED = (HTTP, BULK, DNS, ECHO)

QUESTION = nameserver.domain(topology.SERVER_SERVICE)
"""What the name servers are asked."""


def named() -> topology.Deployment:
    """The twin with the one name that is asked for."""
    return msgspec.structs.replace(TWIN, services=(topology.SERVER_SERVICE,))


def name_servers() -> topology.Service:
    """The Service whose pods know that name, each with its name server."""
    pods = tuple(msgspec.structs.replace(pod, port=DNS_PORT, serves="dns") for pod in DNS.pods)
    return topology.Service(name=DNS.name, ip=DNS.frontend.ip, ports=(DNS.port,), backends=pods)


def fillers(count: int) -> list[Service]:
    """`count` further Services like `HTTP`, each with an address of its own.

    Raises:
        ValueError: there are not that many addresses.
    """
    if not 0 <= count <= MAX_SERVICES:
        raise ValueError(f"{count} Services do not fit: at most {MAX_SERVICES}")
    return [_like_http(f"filler-{number:05}", _FILLERS_FROM + number) for number in range(count)]


def newcomer(number: int) -> Service:
    """A Service that is added while the others are there; another address for each number."""
    return _like_http(f"newcomer-{number}", _CHANGES_FROM + number)


def addresses_of(services: Iterable[Service]) -> list[Address]:
    """Where they answer, in their order."""
    return [address for service in services for address in service.addresses]


def manifest(services: Iterable[Service]) -> str:
    """The Services and their EndpointSlices as one YAML file (of JSON documents)."""
    return objects.manifest(
        (each for service in services for each in (api_service(service), api_slice(service))), indent=None
    )


def api_service(service: Service) -> Object:
    """The Service object."""
    ingress: list[Ingress] = [{"ip": ip} for ip in service.ingress]
    return objects.service(
        service.name, [service.frontend.ip], [service.port], ingress=ingress, **service.spec
    )


def api_slice(service: Service) -> Object:
    """The EndpointSlice object of its pods."""
    endpoints = [objects.endpoint(pod.ip, HOST.name) for pod in service.pods]
    return objects.endpoint_slice(f"{service.name}-pods", service.name, [service.port], endpoints)


def api_endpoints(service: Service) -> Object:
    """The Endpoints object of its pods, which proxies of before EndpointSlices read."""
    return objects.endpoints(service.name, [service.port], [pod.ip for pod in service.pods], HOST.name)


def api_node() -> Object:
    """The Node object of the host, which is the same in every twin."""
    return objects.node(HOST.name)


def _like_http(name: str, ip: int) -> Service:
    frontend = Address(str(ipaddress.IPv4Address(ip)), HTTP.frontend.port)
    return msgspec.structs.replace(HTTP, name=name, frontend=frontend)
