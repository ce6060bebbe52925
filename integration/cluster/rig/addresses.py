"""Names and addresses of the cluster: those of the reference deployment, and a third node. Pure.

Nothing here is visible outside the rig's own network namespaces, so rigs side by side share them.
"""

from __future__ import annotations

from dataclasses import dataclass

HOSTS = "10.100.0.0/24"
API_SERVER = "10.100.0.1"
"""Of etcd, API server, controllers, CoreDNS and the tests: a machine beside the nodes, and their gateway."""
PODS = "10.0.0.0/14"
SERVICES = "10.3.240.0/20"
DNS = "10.3.240.10"
"""Of the Service kube-dns, which every pod asks."""
BRIDGE = "nodes"
"""The link that the control plane and all nodes are on, in the control plane's namespace."""


@dataclass(frozen=True)
class NodeAddress:
    """One node: its name is that of its Node object and its host name."""

    number: int

    @property
    def name(self) -> str:
        """As in `node1`."""
        return f"node{self.number}"

    @property
    def zone(self) -> str:
        """Each node is in a zone of its own."""
        return f"zone{self.number}"

    @property
    def ip(self) -> str:
        """On the hosts' network."""
        return f"10.100.0.{self.number + 1}"

    @property
    def pods(self) -> str:
        """The network of its pods."""
        return f"10.0.{self.number}.0/24"


NODES = tuple(NodeAddress(number) for number in (1, 2, 3))
