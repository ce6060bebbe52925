"""Services of a scenario's own, written as manifests beside those of the lab."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from integration.sockets import PATIENCE_SECONDS
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.lab.objects import Metadata


def manifest(name: str, frontend: Address, backends: Sequence[Address], **annotations: str) -> str:
    """A Service with one TCP port, and an EndpointSlice for each of its backends.

    Args:
        name: of the Service, in the namespace `default`.
        frontend: its cluster IP and port.
        backends: its pods.
        annotations: `userproxy.dev/...`, with an underscore for each dash. No health checks by default: a
            scenario that holds a pod's end in its own hands wants no other client there.
    """
    said = {"health_check": "off"} | annotations
    metadata: Metadata = {
        "annotations": {f"userproxy.dev/{key.replace('_', '-')}": value for key, value in said.items()}
    }
    slices = [
        objects.endpoint_slice(
            f"{name}-{number}", name, [Port(frontend.port, backend.port)], [objects.endpoint(backend.ip)]
        )
        for number, backend in enumerate(backends)
    ]
    service = objects.service(name, [frontend.ip], [Port(frontend.port)], metadata=metadata)
    return objects.manifest([service, *slices])


def publish(
    lab: Lab, name: str, ip: str, backends: Sequence[Address], *, port: int = 80, **annotations: str
) -> Address:
    """Create or change a Service, and wait until the daemon on host1 serves it so; returns its frontend.

    The arguments are those of `manifest`.
    """
    frontend = Address(ip, port)
    lab.write_manifest(f"{name}.yaml", manifest(name, frontend, backends, **annotations))
    wanted = ((str(frontend),), sorted(map(str, backends)), ())
    wait_until(f"{name} is served", lambda: _served(lab, name) == wanted, PATIENCE_SECONDS)
    return frontend


@contextlib.contextmanager
def published(
    lab: Lab, name: str, ip: str, backends: Sequence[Address], *, port: int = 80, **annotations: str
) -> Iterator[Address]:
    """A Service as `publish` makes it, for the time of the block.

    Raises:
        AssertionError: there is one of this name: another scenario has left it.
    """
    assert not (lab.manifests / f"{name}.yaml").exists(), f"{name} was left by another scenario"
    try:
        yield publish(lab, name, ip, backends, port=port, **annotations)
    finally:
        withdraw(lab, name)


def withdraw(lab: Lab, name: str) -> None:
    """Delete a Service, if it is there, and wait until the daemon on host1 has forgotten it."""
    (lab.manifests / f"{name}.yaml").unlink(missing_ok=True)
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


def _served(lab: Lab, name: str) -> tuple[tuple[str, ...], list[str], tuple[str, ...]] | None:
    """The frontends of a Service, its backends, and what is wrong with it; nothing that only lingers."""
    service = f"default/{name}"
    with AdminClient(lab.admin_socket("host1")) as admin:
        rows = {row.service: row for row in admin.services() if row.frontends}
        backends = [row for row in admin.backends() if row.service == service and row.state != "removed"]
    if service not in rows:
        return None
    return rows[service].frontends, sorted(row.backend for row in backends), rows[service].problems
