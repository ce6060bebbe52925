"""The addresses that our listeners have: set by the operator, or the node's primary ones, as these change."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from userproxy.config import is_own_address, primary_address
from userproxy.model.address import IpFamily, family_of
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


class _Held:
    """The host IP of one family; empty while there is none."""

    def __init__(self, ip: str, *, follows: bool) -> None:
        self.ip = ip
        self.is_there = bool(ip)
        self.follows = follows


class HostAddress:
    """The host IPs, one of each family, and what is around them. Lives as long as the daemon.

    An address that nobody has named is kept for as long as the node has it, whatever else it gets: what
    listens there goes on. Only when it is gone does the node's primary address of then take its place. A
    family of which the node has no address gets one as soon as the node has.

    Args:
        config: of the daemon.
        primary: tells the node's primary address of a family; empty while there is none.
        is_own: tells whether an address is the node's.
        surroundings: tells what else the node has.
    """

    def __init__(
        self,
        config: Config,
        primary: Callable[[IpFamily], str] = primary_address,
        is_own: Callable[[str], bool] = is_own_address,
        surroundings: Callable[[], Surroundings] = Surroundings,
    ) -> None:
        known = {family_of(ip): ip for ip in config.host_ips}
        self._held = {
            family: _Held(known.get(family, ""), follows=family in config.host_ip_follows)
            for family in IpFamily
        }
        self._node = config.node_name
        self._primary = primary
        self._is_own = is_own
        self._read = surroundings
        self._node_port_networks = config.node_port_networks
        self._pod_networks = config.pod_networks
        self._around = surroundings()

    @property
    def ips(self) -> tuple[str, ...]:
        """Of the listeners: at most one of each family, in the order of the families."""
        return tuple(held.ip for held in self._held.values() if held.ip)

    @property
    def ips_there(self) -> tuple[str, ...]:
        """Those of them that the node has now."""
        return tuple(held.ip for held in self._held.values() if held.is_there)

    @property
    def problems(self) -> frozenset[Problem]:
        """That some are not there, or that nobody can tell where the outside is, and what to do."""
        return frozenset({*self._missing(), *self._boundless()})

    def _missing(self) -> Iterator[Problem]:
        for held in self._held.values():
            if held.ip and not held.is_there:
                yield _missing_problem(self._node, held.ip, follows=held.follows)

    def _boundless(self) -> Iterator[Problem]:
        if not self._around.uplinks:
            message = (
                "the node has no default route, so that no client counts as one from outside: cluster IPs "
                "are open to all, and externalTrafficPolicy is not heeded; give it one"
            )
            yield Problem(self._node, "NoDefaultRoute", message)

    def network(self, node: Node) -> NodeNetwork:
        """What Services on this node are planned with.

        Args:
            node: as the source knows it; its networks of pods count unless some are set.
        """
        addresses = self.ips
        if self._node_port_networks:
            addresses = tuple(ip for ip in self._around.addresses if self._answers_node_ports(ip))
        pods = tuple(map(str, self._pod_networks)) or node.pod_networks
        return NodeNetwork(self.ips, addresses, self._around.uplinks, tuple(sorted(pods)))

    def _answers_node_ports(self, ip: str) -> bool:
        return any(ip_address(ip) in network for network in self._node_port_networks)

    def _followed(self, seen: Surroundings) -> Surroundings:
        """While there is no default route, the outside is where it was: it must not come in by a gap."""
        return seen if seen.uplinks else seen._replace(uplinks=self._around.uplinks)

    def look(self) -> bool:
        """See what the node has now; returns whether anything is different from before."""
        before = (self.ips, self.ips_there, self._around)
        with contextlib.suppress(NetfilterError):  # what was last known stays
            self._around = self._followed(self._read())
        for family, held in self._held.items():
            held.is_there = bool(held.ip) and self._is_own(held.ip)
            if held.follows and not held.is_there:
                primary = self._primary(family)
                if primary:
                    held.ip, held.is_there = primary, True
        return before != (self.ips, self.ips_there, self._around)


def _missing_problem(node: str, ip: str, *, follows: bool) -> Problem:
    remedy = "give it back to an interface, or name another one with --host-ip and start anew"
    if follows:
        remedy = "the node has no other of its family yet; give it an address and a default route"
    message = (
        f"{ip} is no longer an address of this node, and Services that are redirected to listeners "
        f"on it are not reached: {remedy}"
    )
    return Problem(node, "HostAddressMissing", message)
