"""What this node has of the network, as far as Services are concerned."""

from __future__ import annotations

import msgspec


class NodeNetwork(msgspec.Struct, frozen=True):
    """The node's addresses, and where its outside begins.

    Attributes:
        host_ip: where listeners listen.
        addresses: of this node, at which node ports answer; sorted, without loopback.
        uplinks: names of the interfaces by which packets come from outside; sorted.
        pod_networks: networks of pods in CIDR notation; sorted. What comes from there is not from outside.
    """

    host_ip: str
    addresses: tuple[str, ...] = ()
    uplinks: tuple[str, ...] = ()
    pod_networks: tuple[str, ...] = ()
