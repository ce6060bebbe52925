"""The address that our listeners have: set by the operator, or the node's primary one, as that changes."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from userproxy.config import is_own_address, primary_address
from userproxy.model.network import NodeNetwork
from userproxy.model.snapshot import Problem
from userproxy.netfilter import NetfilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.config import Config
    from userproxy.model.snapshot import Node


class Surroundings(NamedTuple):
    """What else the node has of the network.

    Attributes:
        addresses: of the node, without loopback; sorted.
        uplinks: names of the interfaces by which packets come from outside; sorted.
    """

    addresses: tuple[str, ...] = ()
    uplinks: tuple[str, ...] = ()


class HostAddress:
    """The host IP, and what is around it. Lives as long as the daemon.

    An address that nobody has named is kept for as long as the node has it, whatever else it gets: what
    listens there goes on. Only when it is gone does the node's primary address of then take its place.

    Args:
        config: of the daemon.
        primary: tells the node's primary address; empty while there is none.
        is_own: tells whether an address is the node's.
        surroundings: tells what else the node has.

    Attributes:
        ip: of the listeners.
        is_there: whether the node has it.
    """

    def __init__(
        self,
        config: Config,
        primary: Callable[[], str] = primary_address,
        is_own: Callable[[str], bool] = is_own_address,
        surroundings: Callable[[], Surroundings] = Surroundings,
    ) -> None:
        self.ip = config.host_ip
        self.is_there = True
        self._node = config.node_name
        self._follows = config.host_ip_follows
        self._primary = primary
        self._is_own = is_own
        self._read = surroundings
        self._node_port_networks = config.node_port_networks
        self._pod_networks = config.pod_networks
        self._around = surroundings()

    @property
    def problems(self) -> frozenset[Problem]:
        """That it is not there, or that nobody can tell where the outside is, and what to do."""
        return frozenset({*self._missing(), *self._boundless()})

    def _boundless(self) -> Iterator[Problem]:
        if not self._around.uplinks:
            message = (
                "the node has no default route, so that no client counts as one from outside: cluster IPs "
                "are open to all, and externalTrafficPolicy is not heeded; give it one"
            )
            yield Problem(self._node, "NoDefaultRoute", message)

    def _missing(self) -> Iterator[Problem]:
        if self.is_there:
            return
        remedy = "give it back to an interface, or name another one with --host-ip and start anew"
        if self._follows:
            remedy = "the node has no other yet; give it an address and a default route"
        message = (
            f"{self.ip} is no longer an address of this node, and Services that are redirected to listeners "
            f"on it are not reached: {remedy}"
        )
        yield Problem(self._node, "HostAddressMissing", message)

    def network(self, node: Node) -> NodeNetwork:
        """What Services on this node are planned with.

        Args:
            node: as the source knows it; its networks of pods count unless some are set.
        """
        addresses: tuple[str, ...] = (self.ip,)
        if self._node_port_networks:
            addresses = tuple(ip for ip in self._around.addresses if self._answers_node_ports(ip))
        pods = tuple(map(str, self._pod_networks)) or node.pod_networks
        return NodeNetwork(self.ip, addresses, self._around.uplinks, tuple(sorted(pods)))

    def _answers_node_ports(self, ip: str) -> bool:
        return any(IPv4Address(ip) in network for network in self._node_port_networks)

    def _followed(self, seen: Surroundings) -> Surroundings:
        """While there is no default route, the outside is where it was: it must not come in by a gap."""
        return seen if seen.uplinks else seen._replace(uplinks=self._around.uplinks)

    def look(self) -> bool:
        """See what the node has now; returns whether anything is different from before."""
        before = (self.ip, self.is_there, self._around)
        with contextlib.suppress(NetfilterError):  # what was last known stays
            self._around = self._followed(self._read())
        self.is_there = self._is_own(self.ip)
        if not self.is_there and self._follows:
            primary = self._primary()
            if primary:
                self.ip, self.is_there = primary, True
        return before != (self.ip, self.is_there, self._around)
