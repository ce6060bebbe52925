"""The name servers in the lab's pods: NSD, with the names that Kubernetes gives to Services. Pure.

The records are those of the DNS-based service discovery specification of Kubernetes (version 1.1.0): an
address and a reverse name for each Service, and a service record for each port that has a name. NSD is
authoritative for these zones, refuses every other name, and asks nobody else.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from userproxy.lab.topology import Deployment, Pod, Service

CLUSTER_DOMAIN = "cluster.local"
TTL_SECONDS = 5
"""How long an answer may be kept, also one that says that there is no such name: as CoreDNS has it."""

_SOA = "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400"


def files(deployment: Deployment, service: Service, directory: Path) -> dict[str, str]:
    """All that the name servers of a deployment read, as file name in `directory` -> text.

    Args:
        deployment: the names are those of its Services.
        service: cluster DNS, whose pods the name servers are.
        directory: an absolute path.
    """
    zones = {
        CLUSTER_DOMAIN: _names(deployment, service),
        _reverse_zone(deployment.service_network): _reverse_names(deployment),
    }
    made = {f"{zone}.zone": _zone(zone, records) for zone, records in zones.items()}
    return made | {config(pod): _config(pod, zones, directory) for pod in service.backends}


def config(pod: Pod) -> str:
    """The file with the configuration of a pod's name server."""
    return f"{pod.name}.conf"


def argv(pod: Pod, directory: Path) -> list[str]:
    """The argument vector of a pod's name server: several processes, which end with the first one."""
    return ["nsd", "-d", "-c", str(directory / config(pod))]


def domain(service: Service) -> str:
    """The whole name of a Service, without the dot at its end."""
    return f"{service.name}.{service.namespace}.svc.{CLUSTER_DOMAIN}"


def _names(deployment: Deployment, dns: Service) -> Iterable[str]:
    yield f"ns.dns.{CLUSTER_DOMAIN}. A {dns.ip}"
    yield f'dns-version.{CLUSTER_DOMAIN}. TXT "1.1.0"'
    for service in deployment.services:
        name = domain(service)
        yield f"{name}. A {service.ip}"
        for port in service.ports:
            if port.name:
                yield f"_{port.name}._{port.protocol.lower()}.{name}. SRV 0 100 {port.port} {name}."


def _reverse_names(deployment: Deployment) -> Iterable[str]:
    for service in deployment.services:
        yield f"{ipaddress.ip_address(service.ip).reverse_pointer}. PTR {domain(service)}."


def _reverse_zone(network: str) -> str:
    """The smallest zone of whole octets that has the reverse names of a network."""
    first = ipaddress.ip_network(network)
    octets = str(first.network_address).split(".")[: first.prefixlen // 8]
    return ".".join([*reversed(octets), "in-addr", "arpa"])


def _zone(name: str, records: Iterable[str]) -> str:
    head = [
        f"$TTL {TTL_SECONDS}",
        f"{name}. SOA {_SOA} {TTL_SECONDS}",
        f"{name}. NS ns.dns.{CLUSTER_DOMAIN}.",
    ]
    return "\n".join([*head, *records]) + "\n"


def _config(pod: Pod, zones: Iterable[str], directory: Path) -> str:
    """One process that answers, no limit to how fast, nothing kept on disk, no way to control it."""
    lines = [
        "server:",
        f"  ip-address: {pod.ip}@{pod.port}",
        f'  identity: "{pod.name}"',
        f'  zonesdir: "{directory}"',
        f'  zonelistfile: "{directory / pod.name}.zones"',
        f'  xfrdfile: "{directory / pod.name}.transfers"',
        '  database: ""',
        '  pidfile: ""',
        "  username: root",
        "  server-count: 1",
        "  tcp-count: 1000",
        "  rrl-ratelimit: 0",
        "remote-control:",
        "  control-enable: no",
    ]
    for zone in zones:
        lines += ["zone:", f"  name: {zone}", f'  zonefile: "{zone}.zone"']
    return "\n".join(lines) + "\n"
