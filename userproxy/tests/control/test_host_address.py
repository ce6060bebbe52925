"""Which address listeners have, while those of the node come and go."""

from __future__ import annotations

import pytest

from userproxy.config import Config, is_own_address
from userproxy.control.host_address import HostAddress, Surroundings
from userproxy.model.address import IpFamily, family_of
from userproxy.model.snapshot import Node as SnapshotNode

FIRST, SECOND = "10.100.0.2", "10.100.0.9"
HERE = SnapshotNode("host1")


class Node:
    """A node's addresses; the last one of a family is the primary."""

    def __init__(self) -> None:
        self.has = [FIRST]
        self.uplinks: tuple[str, ...] = ("eth0",)

    def address(self, *, follows: bool, **settings: str) -> HostAddress:
        """The host IP, while the node has only the first address."""
        following = tuple(IpFamily) if follows else ()
        config = Config(host_ip=FIRST, host_ip_follows=following, node_name="host1", **settings)  # type: ignore[arg-type]
        return HostAddress(
            config,
            self._primary,
            lambda ip: ip in self.has,
            lambda: Surroundings(tuple(self.has), self.uplinks),
        )

    def _primary(self, family: IpFamily) -> str:
        return next((ip for ip in reversed(self.has) if family_of(ip) is family), "")


def test_an_address_is_kept_for_as_long_as_the_node_has_it() -> None:
    node = Node()
    address = node.address(follows=True)
    node.has = [FIRST, SECOND]
    address.look()
    assert address.ips == (FIRST,)
    node.has = [SECOND]
    assert address.look()
    assert (address.ips, address.ips_there, address.problems) == ((SECOND,), (SECOND,), frozenset())
    node.has = [SECOND, FIRST]
    address.look()
    assert address.ips == (SECOND,)


@pytest.mark.parametrize("follows", [True, False])
def test_one_that_is_gone_is_waited_for(*, follows: bool) -> None:
    node = Node()
    address = node.address(follows=follows)
    node.has = []
    assert address.look()
    assert not address.look(), "nothing new"
    (problem,) = address.problems
    assert (problem.about, problem.reason) == ("host1", "HostAddressMissing")
    assert FIRST in problem.message
    assert ("--host-ip" in problem.message) is not follows
    node.has = [FIRST]
    assert address.look()
    assert (address.ips, address.problems) == ((FIRST,), frozenset())


def test_one_that_was_named_by_hand_is_never_left() -> None:
    node = Node()
    address = node.address(follows=False)
    node.has = [SECOND]
    assert address.look()
    assert (address.ips, address.ips_there, len(address.problems)) == ((FIRST,), (), 1)


def test_a_family_that_comes_later_is_served_and_goes_by_itself() -> None:
    node = Node()
    address = node.address(follows=True)
    node.has = [FIRST, "fd00::2"]
    assert address.look()
    assert address.network(HERE).host_ips == (FIRST, "fd00::2")
    assert address.network(HERE).host_ip(IpFamily.IPV6) == "fd00::2"
    node.has = ["fd00::2"]
    assert address.look()
    (problem,) = address.problems
    assert problem.message.startswith(f"{FIRST} is no longer")
    assert address.ips_there == ("fd00::2",)
    node.has = ["fd00::9", SECOND]
    assert address.look()
    assert (address.ips, address.problems) == ((SECOND, "fd00::9"), frozenset())


def test_a_family_that_nobody_named_follows_beside_one_that_somebody_did() -> None:
    config = Config(host_ip=f"{FIRST},fd00::2", host_ip_follows=(IpFamily.IPV6,), node_name="host1")
    address = HostAddress(
        config, {IpFamily.IPV6: "fd00::9", IpFamily.IPV4: SECOND}.__getitem__, lambda _: False
    )
    assert address.look()
    assert (address.ips, address.ips_there) == ((FIRST, "fd00::9"), ("fd00::9",))


def test_without_a_default_route_the_outside_is_where_it_was() -> None:
    node = Node()
    address = node.address(follows=True)

    def uplinks() -> tuple[str, ...]:
        return address.network(HERE).uplinks

    node.uplinks = ()
    assert not address.look()
    assert (uplinks(), address.problems) == (("eth0",), frozenset())
    node.uplinks = ("wan0",)
    assert address.look()
    assert uplinks() == ("wan0",)


def test_a_node_that_never_had_a_default_route_is_told_what_that_means() -> None:
    node = Node()
    node.uplinks = ()
    address = node.address(follows=True)
    (problem,) = address.problems
    assert (problem.about, problem.reason) == ("host1", "NoDefaultRoute")
    assert "cluster IPs are open" in problem.message
    node.uplinks = ("eth0",)
    assert address.look()
    assert address.problems == frozenset()


def test_node_ports_answer_where_the_operator_says_and_pods_are_whom_he_says() -> None:
    node = Node()
    node.has = [FIRST, SECOND, "192.0.2.5"]
    known = SnapshotNode("host1", pod_networks=("10.9.0.0/24",))
    network = node.address(follows=True).network(known)
    assert (network.addresses, network.pod_networks) == ((FIRST,), ("10.9.0.0/24",))
    chosen = {"nodeport_addresses": "10.100.0.9/32,192.0.2.0/24", "cluster_cidr": "10.0.0.0/14"}
    network = node.address(follows=True, **chosen).network(known)
    assert (network.addresses, network.pod_networks) == ((SECOND, "192.0.2.5"), ("10.0.0.0/14",))


def test_what_is_the_node_s_own() -> None:
    assert is_own_address("127.0.0.1")
    assert not is_own_address("192.0.2.1")
    assert is_own_address("::1")
    assert not is_own_address("2001:db8::1")
