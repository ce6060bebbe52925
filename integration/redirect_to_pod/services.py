"""Services with any ports and endpoints, as manifests, and the time until the kernel has them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, SERVER1, SERVER2
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def objects(
    name: str,
    ip: str,
    ports: Sequence[Port],
    pods: Sequence[str],
    *,
    path: str = "",
    local: bool = False,
) -> list[dict[str, Any]]:
    """A Service and its EndpointSlice.

    Args:
        name: of both.
        ip: the cluster IP.
        ports: at least one.
        pods: names of pods of the lab, or IP addresses of others; all of them ready.
        path: of the annotation; none by default.
        local: only pods of the client's own node may serve.
    """
    metadata = {"namespace": "default", "name": name}
    annotations = {"userproxy.dev/path": path} if path else {}
    spec = {
        "clusterIP": ip,
        "clusterIPs": [ip],
        "ipFamilies": ["IPv4"],
        "internalTrafficPolicy": "Local" if local else "Cluster",
        "ports": [{"name": each.name, "protocol": each.protocol, "port": each.port} for each in ports],
    }
    slice_ports = [{"name": each.name, "protocol": each.protocol, "port": each.target} for each in ports]
    ips = [POD_IPS.get(pod, pod) for pod in pods]
    endpoints = [
        {"addresses": [each], "nodeName": NODES.get(each, "elsewhere"), "conditions": {"ready": True}}
        for each in ips
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata | {"annotations": annotations},
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


def put(lab: Lab, name: str, ip: str, ports: Sequence[Port], pods: Sequence[str], **more: Any) -> None:  # noqa: ANN401 - as of objects()
    """Create or change a Service, and wait until the daemon on host1 has carried it out."""
    path = more.get("path") or "redirect-to-pod"
    text = json.dumps({"kind": "List", "apiVersion": "v1", "items": objects(name, ip, ports, pods, **more)})
    lab.write_manifest(f"{name}.json", text)
    wanted = sorted(f"{POD_IPS.get(pod, pod)}:{port.target}" for pod in pods for port in ports)
    wait_until(f"{name} is carried out", lambda: _carried_out(lab, name) == (path, wanted), PATIENCE_SECONDS)


@contextlib.contextmanager
def service(
    lab: Lab,
    name: str,
    ip: str,
    ports: Sequence[Port],
    pods: Sequence[str],
    **more: Any,  # noqa: ANN401 - as of objects()
) -> Iterator[None]:
    """A Service for the time of the block."""
    put(lab, name, ip, ports, pods, **more)
    try:
        yield
    finally:
        lab.remove_manifest(f"{name}.json")
        wait_until(f"{name} is gone", lambda: _carried_out(lab, name) is None, PATIENCE_SECONDS)


def _carried_out(lab: Lab, name: str) -> tuple[str, list[str]] | None:
    """The path and the backends of a Service, as the daemon has carried them out."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        paths = {row.path for row in admin.services() if row.service.startswith(f"default/{name}:")}
        backends = [row.backend for row in admin.backends() if row.service.startswith(f"default/{name}:")]
    return (paths.pop(), sorted(backends)) if len(paths) == 1 else None
