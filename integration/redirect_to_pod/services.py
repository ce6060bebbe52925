"""Services with any ports and endpoints, as manifests, and the time until the kernel has them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, SERVER1, SERVER2
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from userproxy.lab.deployment import Lab

PATIENCE_SECONDS = 10.0
NODES = {pod.ip: host.name for host in (HOST1, HOST2) for pod in host.pods}
POD_IPS = {"server1": SERVER1.ip, "server2": SERVER2.ip, "client": CLIENT.ip}


class Port(NamedTuple):
    """One port of a Service, and the port behind it in each pod."""

    port: int
    target: int
    protocol: str = "TCP"

    @property
    def name(self) -> str:
        """As Kubernetes wants it where there are several."""
        return f"{self.protocol.lower()}-{self.port}"


class Options(NamedTuple):
    """What else there is to say of a Service.

    Attributes:
        path: of the annotation; none by default.
        local: only pods of the client's own node may serve.
        terminating: those of the pods that are being deleted, and still serve; all others are ready.
        annotations: `userproxy.dev/...`, without that.
        ipv6: a second cluster IP.
    """

    path: str = ""
    local: bool = False
    terminating: Sequence[str] = ()
    annotations: Mapping[str, str] = {}
    ipv6: str = ""


PLAIN = Options()


def objects(
    name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], options: Options = PLAIN
) -> list[dict[str, Any]]:
    """A Service and its EndpointSlice.

    Args:
        name: of both.
        ip: the cluster IP.
        ports: at least one.
        pods: names of pods of the lab, or IP addresses of others.
        options: what else there is to say.
    """
    metadata = {"namespace": "default", "name": name}
    annotated = {f"userproxy.dev/{key}": value for key, value in options.annotations.items()}
    if options.path:
        annotated["userproxy.dev/path"] = options.path
    spec = {
        "clusterIP": ip,
        "clusterIPs": [ip, options.ipv6] if options.ipv6 else [ip],
        "ipFamilies": ["IPv4", "IPv6"] if options.ipv6 else ["IPv4"],
        "internalTrafficPolicy": "Local" if options.local else "Cluster",
        "ports": [{"name": each.name, "protocol": each.protocol, "port": each.port} for each in ports],
    }
    slice_ports = [{"name": each.name, "protocol": each.protocol, "port": each.target} for each in ports]
    endpoints = [
        {
            "addresses": [POD_IPS.get(pod, pod)],
            "nodeName": NODES.get(POD_IPS.get(pod, pod), "elsewhere"),
            "conditions": {
                "ready": pod not in options.terminating,
                "serving": True,
                "terminating": pod in options.terminating,
            },
        }
        for pod in pods
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata | {"annotations": annotated},
            "spec": spec,
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | {"labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": slice_ports,
            "endpoints": endpoints,
        },
    ]


def manifest(name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], **options: Any) -> str:  # noqa: ANN401 - those of Options
    """The same, as the content of a file."""
    items = objects(name, ip, ports, pods, Options(**options))
    return json.dumps({"kind": "List", "apiVersion": "v1", "items": items})


def put(lab: Lab, name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], **options: Any) -> None:  # noqa: ANN401 - those of Options
    """Create or change a Service, and wait until the daemon on host1 has carried it out."""
    lab.write_manifest(f"{name}.json", manifest(name, ip, ports, pods, **options))
    wanted = Options(**options)
    rows = sorted(
        (f"{POD_IPS.get(pod, pod)}:{port.target}", pod in wanted.terminating)
        for pod in pods
        for port in ports
    )
    wait_until(
        f"{name} is carried out",
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
    """The path of a Service, and its backends with whether they drain, as the daemon has carried them out."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        paths = {row.path for row in admin.services() if row.service.startswith(f"default/{name}:")}
        rows = [row for row in admin.backends() if row.service.startswith(f"default/{name}:")]
    return (
        (paths.pop(), sorted((row.backend, row.state == "draining") for row in rows))
        if len(paths) == 1
        else None
    )
