"""A UDP client that keeps its source port is served at every kind of entry, whatever becomes of the Service.

Conntrack keeps the translation of a flow's first packet for as long as the client keeps sending: these never
stop, so whatever is not forgotten shows.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.redirect_to_pod.servers import serving
from integration.sockets import PATIENCE_SECONDS, inside
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, HOST2, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

PODS = {"server1": (SERVER1.ip, HOST1.name), "server2": (SERVER2.ip, HOST2.name)}
MEMBERS = ("client", "host1", "gateway")
SOURCE_PORT = 5353
NETWORK = "192.0.2.0/24"
CLUSTER_IP = Address("10.3.242.9", 53)
SHORT = 0.3


class Names(NamedTuple):
    """The Service as it is at one time."""

    pods: tuple[str, ...] = ("server1",)
    target: int = 7000
    node_port: int = 30053
    external: str = "192.0.2.53"
    balancer: str = "192.0.2.54"

    @property
    def text(self) -> str:
        """Its objects, as the content of a file."""
        ports = [Port(53, self.target, "dns", "UDP", self.node_port)]
        service = objects.service(
            "dns",
            [CLUSTER_IP.ip],
            ports,
            ingress=[{"ip": self.balancer}],
            type="LoadBalancer",
            externalIPs=[self.external],
        )
        pods = [objects.endpoint(*PODS[pod]) for pod in self.pods]
        return json.dumps(objects.listed([service, objects.endpoint_slice("dns", "dns", ports, pods)]))

    @property
    def entries(self) -> dict[str, Address]:
        """Where it answers."""
        return {
            "cluster IP": CLUSTER_IP,
            "node port": Address(HOST1.ip, self.node_port),
            "external IP": Address(self.external, 53),
            "load balancer IP": Address(self.balancer, 53),
        }

    @property
    def answer(self) -> str:
        """What its one pod says."""
        return f"{self.pods[0]}:{self.target}" if self.pods else ""


class Client:
    """One socket with one port, in a member of the lab, for every entry."""

    def __init__(self, lab: Lab, member: str) -> None:
        with inside(lab, member):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", SOURCE_PORT))
        self._socket.settimeout(SHORT)

    def ask(self, address: Address) -> str:
        """Who answers, if anybody does, and from the address that was asked."""
        with contextlib.suppress(OSError):  # the node's own that is refused fails in `send`
            self._socket.sendto(b"who?", (address.ip, address.port))
            while True:
                answer, source = self._socket.recvfrom(100)
                if source == (address.ip, address.port):
                    return answer.decode().split()[0]
        return ""

    def close(self) -> None:
        """The end."""
        self._socket.close()


@pytest.fixture
def clients(lab: Lab) -> Iterator[dict[str, Client]]:
    """In a pod, on the node, and outside."""
    gateway = lab.deployment.gateway
    for network in (NETWORK, lab.deployment.service_network):
        lab.exec(gateway, "ip", "route", "replace", network, "via", HOST1.ip)
    made = {member: Client(lab, member) for member in MEMBERS}
    yield made
    for client in made.values():
        client.close()
    lab.exec(gateway, "ip", "route", "del", NETWORK)


def answers(clients: dict[str, Client], names: Names) -> dict[str, str]:
    """What each hears at each entry; cluster IPs are not for those from outside."""
    return {
        f"{member}, {entry}": client.ask(address)
        for member, client in clients.items()
        for entry, address in names.entries.items()
        if (member, entry) != ("gateway", "cluster IP")
    }


def settle(lab: Lab, clients: dict[str, Client], names: Names) -> None:
    """Publish it; while they go on asking, all clients are to hear of it at all entries."""
    lab.write_manifest("dns.json", names.text)
    until = time.monotonic() + PATIENCE_SECONDS
    while set((heard := answers(clients, names)).values()) != {names.answer}:
        assert time.monotonic() < until, {
            asked: said for asked, said in heard.items() if said != names.answer
        }


def frontends(lab: Lab) -> list[str]:
    """Of the Service, as the daemon shows them."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        rows = [row for row in admin.services() if row.service == "default/dns:dns"]
    return [frontend for row in rows for frontend in row.frontends]


@pytest.fixture
def dns(lab: Lab, clients: dict[str, Client]) -> Iterator[Names]:
    """The Service, when it has been there for a while and everybody has a flow."""
    names = Names()
    with serving(lab, list(PODS), 7000, 7001):
        settle(lab, clients, names)
        yield names
        lab.remove_manifest("dns.json")
        wait_until("dns is gone", lambda: not frontends(lab), PATIENCE_SECONDS)


def test_another_target_port(lab: Lab, clients: dict[str, Client], dns: Names) -> None:
    settle(lab, clients, dns._replace(target=7001))
    settle(lab, clients, dns)


def test_another_pod(lab: Lab, clients: dict[str, Client], dns: Names) -> None:
    settle(lab, clients, dns._replace(pods=("server2",)))
    settle(lab, clients, dns)


def test_no_pod_for_a_while(lab: Lab, clients: dict[str, Client], dns: Names) -> None:
    settle(lab, clients, dns._replace(pods=()))
    settle(lab, clients, dns._replace(pods=("server2",)))


def test_addresses_that_go_and_come_back(lab: Lab, clients: dict[str, Client], dns: Names) -> None:
    """What was sent meanwhile went somewhere else, and conntrack has noted that too."""
    settle(lab, clients, dns._replace(node_port=30054, external="192.0.2.63", balancer="192.0.2.64"))
    gone = {name: address for name, address in dns.entries.items() if name != "cluster IP"}
    heard = {client.ask(address) for client in clients.values() for address in gone.values()}
    assert heard == {""}, "nobody is served at an address that the Service has no more"
    settle(lab, clients, dns._replace(pods=("server2",)))


def test_no_service_for_a_while(lab: Lab, clients: dict[str, Client], dns: Names) -> None:
    lab.remove_manifest("dns.json")
    wait_until("nobody answers", lambda: set(answers(clients, dns).values()) == {""}, PATIENCE_SECONDS)
    settle(lab, clients, dns)
