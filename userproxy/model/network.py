"""What this node has of the network, as far as Services are concerned."""

from __future__ import annotations

import msgspec

from userproxy.model.address import IpFamily, family_of


class NodeNetwork(msgspec.Struct, frozen=True):
    """The node's addresses, and where its outside begins.

    Attributes:
        host_ips: where listeners listen: at most one of each family. Services are served to the families of
            these.
        addresses: of this node, at which node ports answer; sorted, without loopback.
        uplinks: names of the interfaces by which packets come from outside; sorted.
        pod_networks: networks of pods in CIDR notation; sorted. What comes from there is not from outside.
    """

    host_ips: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    uplinks: tuple[str, ...] = ()
    pod_networks: tuple[str, ...] = ()

    def host_ip(self, family: IpFamily) -> str:
        """Where listeners of this family listen; empty if the node has no such address."""
        for ip in self.host_ips:
            if family_of(ip) is family:
                return ip
        return ""
