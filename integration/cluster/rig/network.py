"""The links between the control plane and the nodes: one bridge, static routes to each node's pods.

```
        10.100.0.1 control plane: bridge `nodes`
          |               |               |
   node1 10.100.0.2   node2 .3        node3 .4        eth0
   cni0 10.0.1.1/24   10.0.2.1/24     10.0.3.1/24     made by the bridge plugin of CNI
```
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from integration.cluster.rig.addresses import API_SERVER, BRIDGE, HOSTS
from integration.kubernetes.processes import ClusterError, in_namespace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.cluster.rig.addresses import NodeAddress
    from integration.cluster.rig.space import Space

# A namespace inherits some of these from the machine. Without the last two the control plane would tell nodes
# of shorter ways.
_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
}


def connect(control_plane: Space, nodes: Mapping[NodeAddress, Space]) -> None:
    """Make links, addresses and routes in namespaces that have none yet.

    Raises:
        ClusterError: a step was refused.
    """
    length = HOSTS.partition("/")[2]
    _ip(
        control_plane,
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge stp_state 0",
            f"address add {API_SERVER}/{length} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            *(f"link add {at.name} type veth peer name eth0 netns {it.pid}" for at, it in nodes.items()),
            *(f"link set {at.name} master {BRIDGE} up" for at in nodes),
            *_routes(list(nodes)),
        ],
    )
    _sysctls(control_plane)
    for here, space in nodes.items():
        _sysctls(space)
        _ip(
            space,
            [
                "link set lo up",
                f"address add {here.ip}/{length} dev eth0",
                "link set eth0 up",
                f"route add default via {API_SERVER}",
                *_routes([node for node in nodes if node != here]),
            ],
        )


def _routes(nodes: Sequence[NodeAddress]) -> list[str]:
    return [f"route add {node.pods} via {node.ip}" for node in nodes]


def _sysctls(space: Space) -> None:
    _run(["sysctl", "-qw", *(f"{name}={value}" for name, value in _SYSCTLS.items())], space)


def _ip(space: Space, lines: Sequence[str]) -> None:
    _run(["ip", "-batch", "-"], space, "\n".join(lines) + "\n")


def _run(command: Sequence[str], space: Space, text: str = "") -> None:
    done = subprocess.run(
        in_namespace(space.netns, command), input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(
            f"`{' '.join(command)}` in {space.name} was refused: {' '.join(done.stderr.split())}"
        )
