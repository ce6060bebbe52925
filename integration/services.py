"""Services of a scenario's own, written as manifests beside those of the lab."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from userproxy.lab.processes import wait_until
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.lab.deployment import Lab

PATIENCE_SECONDS = 10.0


def manifest(name: str, frontend: Address, backends: Sequence[Address]) -> str:
    """A Service with one TCP port, and an EndpointSlice for each of its backends."""
    metadata = {"namespace": "default", "name": name}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        # A scenario that holds a pod's end in its own hands wants no other client there.
        "metadata": {**metadata, "annotations": {"userproxy.dev/health-check": "off"}},
        "spec": {
            "clusterIP": frontend.ip,
            "clusterIPs": [frontend.ip],
            "ipFamilies": ["IPv4"],
            "ports": [{"protocol": "TCP", "port": frontend.port}],
        },
    }
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": f"{name}-{number}",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "protocol": "TCP", "port": backend.port}],
            "endpoints": [{"addresses": [backend.ip], "conditions": {"ready": True}}],
        }
        for number, backend in enumerate(backends)
    ]
    return "---\n".join(json.dumps(each, indent=2) + "\n" for each in [service, *slices])


def publish(lab: Lab, name: str, ip: str, backends: Sequence[Address], port: int = 80) -> Address:
    """Create or change a Service, and wait until the daemon on host1 serves it so; returns its frontend."""
    frontend = Address(ip, port)
    lab.write_manifest(f"{name}.yaml", manifest(name, frontend, backends))
    wanted = (str(frontend), sorted(map(str, backends)))
    wait_until(f"{name} is served", lambda: _served(lab, name) == wanted, PATIENCE_SECONDS)
    return frontend


def withdraw(lab: Lab, name: str) -> None:
    """Delete a Service, and wait until the daemon on host1 has forgotten it."""
    lab.remove_manifest(f"{name}.yaml")
    wait_until(f"{name} is gone", lambda: _served(lab, name) is None, PATIENCE_SECONDS)


def host_port(lab: Lab, name: str) -> int:
    """The host port on which the daemon on host1 serves a Service; 0 if it has none."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        found = {row.service: row.listener for row in admin.services()}
    listener = found.get(f"default/{name}")
    return Address.parse(listener).port if listener else 0


def live_connections(lab: Lab, name: str) -> int:
    """How many connections of a Service are live on host1."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return sum(row.service == f"default/{name}" for row in admin.connections())


def problems(lab: Lab) -> tuple[str, ...]:
    """What the daemon on host1 says is wrong."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return admin.status().problems


def _served(lab: Lab, name: str) -> tuple[str, list[str]] | None:
    service = f"default/{name}"
    with AdminClient(lab.admin_socket("host1")) as admin:
        frontends = {row.service: ", ".join(row.frontends) for row in admin.services()}
        backends = sorted(row.backend for row in admin.backends() if row.service == service)
    return (frontends[service], backends) if service in frontends else None
