"""Nodes of both families and of one, and connections of IPv6 as an operator sees and ends them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.echo import echo_server
from integration.services import problems
from integration.sockets import PATIENCE_SECONDS, connect
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

PATHS = ("redirect-to-host", "redirect-to-pod")
CLUSTER_IPS = {"IPv4": Address("10.3.240.1", 80), "IPv6": Address("fd00:10:3:240::1", 80)}
EXTERNAL_IPS = {"IPv4": "192.0.2.1", "IPv6": "2001:db8::1"}
BACKENDS = {"IPv4": "server1", "IPv6": "server2"}
LISTENERS = {"IPv4": HOST1.ip, "IPv6": HOST1.ip6}
GATEWAYS = {"IPv4": "10.100.0.1", "IPv6": "fd00:10:100::1"}
PREFIXES = {"IPv4": 24, "IPv6": 64}
FLAGS = {"IPv4": "-4", "IPv6": "-6"}


def publish(lab: Lab, *families: str, backends: bool = True) -> None:
    """A Service of these families, with a pod of its own in each of both."""
    ports = [Port(80, 7000)]
    ips = [CLUSTER_IPS[family].ip for family in families]
    external = [EXTERNAL_IPS[family] for family in families]
    made = [objects.service("web", ips, ports, externalIPs=external)]
    if backends:
        pods = (objects.endpoint(SERVER1.ip, HOST1.name), objects.endpoint(SERVER2.ip6, HOST2.name))
        made += [objects.endpoint_slice(f"web-{n}", "web", ports, [pod]) for n, pod in enumerate(pods)]
    lab.write_manifest("web.json", json.dumps(objects.listed(made)))


def rows(lab: Lab) -> dict[str, dict[str, Any]]:
    """What is served of the Service, by family."""
    found = lab.rows("host1", "services")
    return {row["family"]: row for row in found if row["service"] == "default/web" and row["frontends"]}


@contextlib.contextmanager
def servers(lab: Lab) -> Iterator[None]:
    """In each family the pod of the Service, which says its name and whom it sees, and then echoes."""
    with (
        echo_server(lab.namespace("server1"), (SERVER1.ip, 7000), "server1"),
        echo_server(lab.namespace("server2"), (SERVER2.ip6, 7000), "server2"),
    ):
        yield


def hold(lab: Lab, member: str, address: Address) -> tuple[socket.socket, str]:
    """A connection that stays, and who answered it."""
    connection = connect(lab, member, address)
    return connection, connection.recv(100).decode().split()[0]


def who_answers(lab: Lab, member: str, address: Address) -> str:
    """Who answers a new connection; empty if nobody does."""
    try:
        connection, name = hold(lab, member, address)
    except OSError:
        return ""
    connection.close()
    return name


def take_away(lab: Lab, family: str) -> None:
    """Host1 has no address of that family any more, but for those towards its pods."""
    lab.exec("host1", "ip", FLAGS[family], "address", "flush", "dev", "eth0", "scope", "global")
    lab.exec("host1", "ip", FLAGS[family], "route", "delete", "default", check=False)


def give_back(lab: Lab, family: str) -> None:
    """It has one again."""
    address = f"{LISTENERS[family]}/{PREFIXES[family]}"
    lab.exec("host1", "ip", "address", "add", address, "dev", "eth0")
    lab.exec("host1", "ip", FLAGS[family], "route", "add", "default", "via", GATEWAYS[family])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("family", "other"), [("IPv4", "IPv6"), ("IPv6", "IPv4")])
def test_a_node_of_one_family_serves_that_and_the_other_once_it_has_an_address(
    lab: Lab, path: str, family: str, other: str
) -> None:
    take_away(lab, other)
    if other == "IPv4":
        lab.remove_manifest("server-service.yaml")  # of IPv4 alone
    publish(lab, *CLUSTER_IPS)
    lab.start_daemon("host1", "--host-ip", "", "--mode", path, wait=other == "IPv6")
    with servers(lab):
        wait_until("web is served", lambda: lab.admin_socket("host1").exists() and bool(rows(lab)), 20.0)
        assert rows(lab).keys() == {family}
        assert problems(lab) == (), "that is as it should be"
        for member in ("client", "host1"):
            assert who_answers(lab, member, CLUSTER_IPS[family]) == BACKENDS[family]
        assert who_answers(lab, "client", CLUSTER_IPS[other]) == ""
        publish(lab, other)
        wait_until("that is a problem", lambda: len(problems(lab)) == 1, PATIENCE_SECONDS)
        assert f"as this node has no {other} address" in problems(lab)[0]
        publish(lab, *CLUSTER_IPS)
        give_back(lab, other)
        wait_until("both are served", lambda: rows(lab).keys() == {"IPv4", "IPv6"}, PATIENCE_SECONDS)
        for member in ("client", "host1"):
            for each, address in CLUSTER_IPS.items():
                assert who_answers(lab, member, address) == BACKENDS[each]
        assert problems(lab) == ()


def test_a_node_that_gets_another_ipv6_address_is_followed_on_the_same_host_port(lab: Lab) -> None:
    def listeners() -> dict[str, str]:
        return {family: row["listener"] for family, row in rows(lab).items()}

    publish(lab, *CLUSTER_IPS)
    lab.start_daemon("host1", "--host-ip", "")
    wait_until("web is served", lambda: rows(lab).keys() == {"IPv4", "IPv6"}, PATIENCE_SECONDS)
    before = {family: Address.parse(listener) for family, listener in listeners().items()}
    assert {family: address.ip for family, address in before.items()} == LISTENERS
    after = before | {"IPv6": Address("fd00:10:100::9", before["IPv6"].port)}
    with servers(lab):
        kept, _ = hold(lab, "client", CLUSTER_IPS["IPv4"])
        lost, _ = hold(lab, "client", CLUSTER_IPS["IPv6"])
        with kept, lost:
            lab.exec("host1", "ip", "address", "add", f"{after['IPv6'].ip}/64", "dev", "eth0", "nodad")
            lab.exec("host1", "ip", "address", "delete", f"{HOST1.ip6}/64", "dev", "eth0")
            moved = {family: str(address) for family, address in after.items()}
            wait_until("it is followed", lambda: listeners() == moved, PATIENCE_SECONDS)
            for family, name in BACKENDS.items():
                for member in ("client", "host1"):
                    assert who_answers(lab, member, CLUSTER_IPS[family]) == name
            kept.sendall(b"still there?")
            assert kept.recv(100) == b"still there?"
            lost.sendall(b"still there?")
            with pytest.raises(ConnectionResetError):
                lost.recv(100)
        assert problems(lab) == ()


@pytest.mark.parametrize("path", PATHS)
def test_each_family_is_refused_for_itself_where_it_has_no_endpoints(lab: Lab, path: str) -> None:
    publish(lab, *CLUSTER_IPS, backends=False)
    lab.start_daemon("host1", "--mode", path)
    wait_until("web is served", lambda: rows(lab).keys() == {"IPv4", "IPv6"}, PATIENCE_SECONDS)
    for member in ("client", "host1"):
        for address in CLUSTER_IPS.values():
            with pytest.raises(ConnectionRefusedError):
                connect(lab, member, address)


@pytest.mark.parametrize("path", PATHS)
def test_connections_of_ipv6_are_listed_and_drained_as_others_are(lab: Lab, path: str) -> None:
    publish(lab, *CLUSTER_IPS)
    lab.start_daemon("host1", "--mode", path)
    backend = f"[{SERVER2.ip6}]:7000"
    with servers(lab):
        wait_until("web is served", lambda: rows(lab).keys() == {"IPv4", "IPv6"}, PATIENCE_SECONDS)
        connection, name = hold(lab, "client", CLUSTER_IPS["IPv6"])
        other, _ = hold(lab, "client", CLUSTER_IPS["IPv4"])
        with connection, other:
            assert name == "server2"
            client = str(Address(*connection.getsockname()[:2]))
            for asked in (
                ("--client", CLIENT.ip6),
                ("--client", "fd00:10::/32"),
                ("--backend", SERVER2.ip6),
                ("--backend", backend),
            ):
                (row,) = lab.rows("host1", "connections", *asked)
                assert (row["client"], row["frontend"]) == (client, str(CLUSTER_IPS["IPv6"]))
                assert row["backend"] == backend
            assert len(lab.rows("host1", "connections", "--service", "default/web")) == 2
            lab.userproxy("host1", "drain", backend)
            assert who_answers(lab, "client", CLUSTER_IPS["IPv6"]) == ""
            assert who_answers(lab, "client", CLUSTER_IPS["IPv4"]) == "server1"
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
            lab.userproxy("host1", "drain", "--undo", backend)
            assert who_answers(lab, "client", CLUSTER_IPS["IPv6"]) == "server2"
            if path == "redirect-to-host":
                lab.userproxy("host1", "kill", "--client", CLIENT.ip6)
                with pytest.raises(ConnectionResetError):
                    connection.recv(100)
                other.sendall(b"still there?")
                assert other.recv(100) == b"still there?"


@pytest.mark.parametrize("path", PATHS)
def test_a_node_that_stops_leaves_nothing_of_either_family(lab: Lab, path: str) -> None:
    def traces() -> list[str]:
        commands = ("nft list ruleset", "ip -4 rule", "ip -6 rule", "ip -4 route show table all")
        found = [lab.exec("host1", *command.split()).stdout for command in commands]
        return [*found, lab.exec("host1", "ip", "-6", "route", "show", "table", "10110", check=False).stdout]

    before = traces()
    publish(lab, *CLUSTER_IPS)
    daemon = lab.start_daemon("host1", "--mode", path, "--on-stop", "remove")
    wait_until("web is served", lambda: rows(lab).keys() == {"IPv4", "IPv6"}, PATIENCE_SECONDS)
    assert traces()[-1].count("local ") == 2
    assert daemon.stop() == 0
    assert traces() == before
