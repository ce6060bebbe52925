"""UDP Services with every kind of address, as manifests."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, NamedTuple

from integration.sockets import PATIENCE_SECONDS
from integration.udp.servers import PORT
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, HOST2, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.lab.objects import Object

CLUSTER_IP = Address("10.3.242.7", 5000)
EXTERNAL_IP = Address("192.0.2.1", 5000)
OTHER_IP = Address("192.0.2.3", 5000)
LOAD_BALANCER_IP = Address("192.0.2.2", 5000)
NODE_PORT = Address(HOST1.ip, 30500)
SECOND_NETWORK = "198.51.100.0/24"
SECOND_NODE_PORT = Address("198.51.100.7", 30500)
"""At another address of the node, which is not that of its listeners."""

LOOPBACK = Address("127.0.0.1", 30500)
CLUSTER_IP6 = Address("fd00:10:3:242::7", 5000)
EXTERNAL_IP6 = Address("2001:db8::1", 5000)
LOAD_BALANCER_IP6 = Address("2001:db8::2", 5000)
NODE_PORT6 = Address(HOST1.ip6, 30500)
LOOPBACK6 = Address("::1", 30500)
_WHERE = {"server1": (SERVER1, HOST1.name), "server2": (SERVER2, HOST2.name)}


class Served(NamedTuple):
    """What the daemon shows of a Service.

    Attributes:
        backends: its pods.
        ips: at which it answers, but for node ports.
        policies: of its entries.
    """

    backends: frozenset[str]
    ips: frozenset[str]
    policies: frozenset[str]


def echo(name: str, pods: Sequence[str], annotations: dict[str, str], **spec: object) -> list[Object]:
    """A Service of both families with a load balancer, and its pods."""
    port = Port(5000, PORT, "", "UDP", node_port=NODE_PORT.port)
    fields = {"type": "LoadBalancer", "externalIPs": [EXTERNAL_IP.ip, EXTERNAL_IP6.ip], **spec}
    where = [_WHERE[pod] for pod in pods]
    said = {f"userproxy.dev/{key}": value for key, value in annotations.items()}
    return [
        objects.service(
            name,
            [CLUSTER_IP.ip, CLUSTER_IP6.ip],
            [port],
            metadata={"annotations": said},
            ingress=[{"ip": LOAD_BALANCER_IP.ip}, {"ip": LOAD_BALANCER_IP6.ip}],
            **fields,  # type: ignore[arg-type]
        ),
        objects.endpoint_slice(name, name, [port], [objects.endpoint(pod.ip, node) for pod, node in where]),
        objects.endpoint_slice(
            f"{name}-6", name, [port], [objects.endpoint(pod.ip6, node) for pod, node in where]
        ),
    ]


def publish(
    lab: Lab, name: str, pods: Sequence[str], annotations: dict[str, str] | None = None, **spec: object
) -> None:
    """Create or change a Service, and wait until the daemon on host1 serves it so."""
    lab.write_manifest(
        f"{name}.json", json.dumps(objects.listed(echo(name, pods, annotations or {}, **spec)))
    )
    policies = {"Cluster", "Local"} if spec.get("externalTrafficPolicy") == "Local" else {"Cluster"}
    external = spec.get("externalIPs", [EXTERNAL_IP.ip, EXTERNAL_IP6.ip])
    places = [_WHERE[pod][0] for pod in pods]
    always = (CLUSTER_IP, CLUSTER_IP6, LOAD_BALANCER_IP, LOAD_BALANCER_IP6)
    wanted = Served(
        frozenset(str(Address(ip, PORT)) for pod in places for ip in (pod.ip, pod.ip6)),
        frozenset({*(each.ip for each in always), *external}),  # type: ignore[misc]  # a list of addresses
        frozenset(policies),
    )
    wait_until(f"{name} is served", lambda: _served(lab, name) == wanted, PATIENCE_SECONDS)


def republish(lab: Lab, name: str, pods: Sequence[str]) -> None:
    """Delete a Service, and make it anew as soon as it is gone."""
    withdraw(lab, name)
    publish(lab, name, pods)


def withdraw(lab: Lab, name: str) -> None:
    """Delete a Service, and wait until the daemon on host1 has forgotten it."""
    lab.remove_manifest(f"{name}.json")
    wait_until(f"{name} is gone", lambda: _served(lab, name) is None, PATIENCE_SECONDS)


@contextlib.contextmanager
def published(
    lab: Lab, name: str, pods: Sequence[str], annotations: dict[str, str] | None = None, **spec: object
) -> Iterator[None]:
    """A Service for the time of the block."""
    publish(lab, name, pods, annotations, **spec)
    try:
        yield
    finally:
        withdraw(lab, name)


def _served(lab: Lab, name: str) -> Served | None:
    with AdminClient(lab.admin_socket("host1")) as admin:
        rows = [row for row in admin.services() if row.service == f"default/{name}" and row.frontends]
        backends = [
            row.backend
            for row in admin.backends()
            if row.service == f"default/{name}" and row.state != "removed"
        ]
    if not rows:
        return None
    told = (Address.parse(each) for row in rows for each in row.frontends)
    ips = frozenset(each.ip for each in told if each.port == CLUSTER_IP.port)
    return Served(frozenset(backends), ips, frozenset(row.policy for row in rows))
