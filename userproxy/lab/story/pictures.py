"""The deployment as a person sees it: a diagram and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from userproxy.lab.topology import Deployment

_CELL = 36
_PODS_IN_A_ROW = 2


def table(deployment: Deployment) -> Table:
    """Every pod, Service and host with its addresses."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=True)
    for header in ("what", "name", "ip", "port", "where"):
        made.add_column(header)
    for host in deployment.hosts:
        for pod in host.pods:
            made.add_row("pod", pod.name, pod.ip, str(pod.port or "-"), f"{host.name}, {host.pod_network}")
    for service in deployment.services:
        pods = ", ".join(pod.name for pod in service.backends)
        port = str(service.frontend.port)
        made.add_row("service", str(service), service.ip, port, f"nowhere; for {pods}")
    for host in deployment.hosts:
        made.add_row("host", host.name, host.ip, "-", f"{deployment.host_network}, runs userproxy")
    return made


def diagram(deployment: Deployment) -> Text:
    """Each host with its pods, side by side, and the gateway below."""
    pods = [[f"{pod.name} {pod.ip}" for pod in host.pods] for host in deployment.hosts]
    rows = [
        ["  ".join(cell[start : start + _PODS_IN_A_ROW]) for cell in pods]
        for start in range(0, max(map(len, pods)), _PODS_IN_A_ROW)
    ]
    bars = ["|"] * len(deployment.hosts)
    bridges = [f"cbr0 {host.bridge_ip}" for host in deployment.hosts]
    hosts = [f"{host.name} {host.ip} (userproxy)" for host in deployment.hosts]
    rows += [bars, bridges, hosts, bars]
    lines = ["  " + "".join(cell.center(_CELL) for cell in row).rstrip() for row in rows]
    gateway = f" gateway {deployment.gateway_ip} ".center(_CELL * (len(hosts) - 1) - 1, "-")
    lines.append("  " + " " * ((_CELL - 1) // 2) + f"+{gateway}+")
    return Text("\n".join(lines))
