"""Services with any ports and endpoints, as manifests, and the time until the kernel has them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.sockets import PATIENCE_SECONDS
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, SERVER1, SERVER2
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from userproxy.lab.deployment import Lab
    from userproxy.lab.objects import Metadata, Object

NODES = {pod.ip: host.name for host in (HOST1, HOST2) for pod in host.pods}
POD_IPS = {"server1": SERVER1.ip, "server2": SERVER2.ip, "client": CLIENT.ip}


def tcp(port: int, target: int) -> Port:
    """A TCP port, with a name as Kubernetes wants it where there are several."""
    return Port(port, target, f"tcp-{port}")


def udp(port: int, target: int) -> Port:
    """The same by UDP."""
    return Port(port, target, f"udp-{port}", "UDP")


class Options(NamedTuple):
    """What else there is to say of a Service.

    Attributes:
        path: of the annotation; none by default.
        local: only pods of the client's own node may serve.
        terminating: those of the pods that are being deleted, and still serve; all others are ready.
        annotations: `userproxy.dev/...`, without that.
    """

    path: str = ""
    local: bool = False
    terminating: Sequence[str] = ()
    annotations: Mapping[str, str] = {}


PLAIN = Options()


def api_objects(
    name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], options: Options = PLAIN
) -> list[Object]:
    """A Service and its EndpointSlice.

    Args:
        name: of both.
        ip: the cluster IP.
        ports: at least one.
        pods: names of pods of the lab, or IP addresses of others.
        options: what else there is to say.
    """
    said = {"path": options.path, **options.annotations} if options.path else options.annotations
    metadata: Metadata = {"annotations": {f"userproxy.dev/{key}": value for key, value in said.items()}}
    policy = "Local" if options.local else "Cluster"
    endpoints = [
        objects.endpoint(
            POD_IPS.get(pod, pod),
            NODES.get(POD_IPS.get(pod, pod), "elsewhere"),
            objects.TERMINATING if pod in options.terminating else objects.READY,
        )
        for pod in pods
    ]
    return [
        objects.service(name, [ip], ports, metadata=metadata, internalTrafficPolicy=policy),
        objects.endpoint_slice(name, name, ports, endpoints),
    ]


def manifest(name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], **options: Any) -> str:  # noqa: ANN401 - those of Options
    """The same, as the content of a file."""
    return in_a_file(api_objects(name, ip, ports, pods, Options(**options)))


def in_a_file(items: Iterable[Object]) -> str:
    """A JSON file with these objects."""
    return json.dumps(objects.listed(items))


def put(lab: Lab, name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], **options: Any) -> None:  # noqa: ANN401 - those of Options
    """Create or change a Service, and wait until the daemon on host1 has applied it."""
    lab.write_manifest(f"{name}.json", manifest(name, ip, ports, pods, **options))
    wanted = Options(**options)
    rows = sorted(
        (f"{POD_IPS.get(pod, pod)}:{port.behind}", pod in wanted.terminating)
        for pod in pods
        for port in ports
    )
    wait_until(
        f"{name} is applied",
        lambda: _carried_out(lab, name) == (wanted.path or "redirect-to-pod", rows),
        PATIENCE_SECONDS,
    )


@contextlib.contextmanager
def service(
    lab: Lab,
    name: str,
    ip: str,
    ports: Sequence[Port],
    pods: Sequence[str],
    **options: Any,  # noqa: ANN401 - those of Options
) -> Iterator[None]:
    """A Service for the time of the block."""
    put(lab, name, ip, ports, pods, **options)
    try:
        yield
    finally:
        lab.remove_manifest(f"{name}.json")
        wait_until(f"{name} is gone", lambda: _carried_out(lab, name) is None, PATIENCE_SECONDS)


def _carried_out(lab: Lab, name: str) -> tuple[str, list[tuple[str, bool]]] | None:
    """The path of a Service, and its backends with whether they drain, as the daemon has applied them."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        ours = [row for row in admin.services() if row.service.startswith(f"default/{name}:")]
        paths = {row.path for row in ours if row.frontends}  # none: it is gone, and only lingers
        rows = [
            row
            for row in admin.backends()
            if row.service.startswith(f"default/{name}:") and row.state != "removed"
        ]
    return (
        (paths.pop(), sorted((row.backend, row.state == "draining") for row in rows))
        if len(paths) == 1
        else None
    )
