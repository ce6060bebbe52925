"""The table of `userproxy.tests.entries`, with real packets: TCP and UDP, on both paths."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.redirect_to_pod.servers import serving
from integration.services import problems
from integration.sockets import PATIENCE_SECONDS, connect, udp_from
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient
from userproxy.tests.entries import ENTRIES, PODS_OF, POLICIES, Asked, combinations, outcome_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

TARGET, NODE_PORT = 7100, 30090
PROTOCOLS = ("TCP", "UDP")
ADDRESSES = {
    "cluster IP": Address("10.3.240.9", 90),
    "node port": Address(HOST1.ip, NODE_PORT),
    "external IP": Address("192.0.2.90", 90),
    "load balancer IP": Address("192.0.2.91", 90),
}
MEMBERS = {"pod": "client", "host": "host1", "outside": "gateway"}
PODS = {"here": SERVER1, "elsewhere": SERVER2}
BRIDGE = "10.0.1.1"
"""Of host1, where its pods are."""
SERVERS = {"server1": "here", "server2": "elsewhere"}

OFTEN = 24
"""So many requests, at random, miss one of two pods once in 8 million times."""
SHORT = 0.7
"""Who gets no answer for so long gets none. The answers come within milliseconds."""


class Found(NamedTuple):
    """What came of a combination.

    Attributes:
        pods: that answered.
        refused: whether the client was told at once; None where it cannot tell.
        seen: as whom pods saw it.
    """

    pods: frozenset[str]
    refused: bool | None
    seen: frozenset[str] = frozenset()


def mode_of(lab: Lab) -> str:
    """The path that the daemon's Services take."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return admin.status().mode


@contextlib.contextmanager
def published(lab: Lab, policy: str, pods: tuple[str, ...]) -> Iterator[None]:
    """A Service with every kind of entry, and under this policy, for the time of the block."""
    ports = [Port(90, TARGET, protocol.lower(), protocol, NODE_PORT) for protocol in PROTOCOLS]
    service = objects.service(
        "table",
        [ADDRESSES["cluster IP"].ip],
        ports,
        ingress=[{"ip": ADDRESSES["load balancer IP"].ip}],
        type="LoadBalancer",
        externalIPs=[ADDRESSES["external IP"].ip],
        internalTrafficPolicy=policy,
        externalTrafficPolicy=policy,
    )
    nodes = {"here": HOST1.name, "elsewhere": HOST2.name}
    endpoints = [objects.endpoint(PODS[pod].ip, nodes[pod]) for pod in pods]
    slices = objects.endpoint_slice("table", "table", ports, endpoints)
    lab.write_manifest("table.json", json.dumps(objects.listed([service, slices])))
    wait_until("the Service is there", lambda: rows(lab) > 0, PATIENCE_SECONDS)
    try:
        yield
    finally:
        lab.remove_manifest("table.json")
        wait_until("the Service is gone", lambda: not rows(lab), PATIENCE_SECONDS)


def rows(lab: Lab) -> int:
    """How many the daemon shows of it."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        return sum(
            row.service.startswith("default/table:") and bool(row.frontends) for row in admin.services()
        )


def request(lab: Lab, member: str, address: Address, protocol: str) -> tuple[str, str]:
    """The pod that answers, and as whom it sees the client."""
    client: socket.socket
    if protocol == "TCP":
        client = connect(lab, member, address, SHORT)
    else:
        client = udp_from(lab.namespace(member), address, SHORT)
    with client:
        if protocol == "UDP":
            client.send(b"who?")
        server, _, seen = client.recv(100).decode().partition(" ")
    return SERVERS[server.partition(":")[0]], seen.partition(":")[0].split()[0]


def found(lab: Lab, member: str, address: Address, protocol: str, wanted: int) -> Found:
    """What comes of it, asked until `wanted` pods have answered, or often."""
    pods: set[str] = set()
    seen: set[str] = set()
    for _ in range(OFTEN):
        try:
            pod, as_whom = request(lab, member, address, protocol)
        except ConnectionRefusedError:
            return Found(frozenset(pods), refused=True)
        except PermissionError:  # a datagram of the node's own fails in `send`, refused or dropped
            return Found(frozenset(pods), refused=None)
        except TimeoutError:
            return Found(frozenset(pods), refused=False)
        pods.add(pod)
        seen.add(as_whom)
        if len(pods) == wanted > 1:
            break
    return Found(frozenset(pods), refused=False, seen=frozenset(seen))


def expected(lab: Lab, asked: Asked, protocol: str) -> Found:
    """By the table; whom pods see is left out where the table does not say."""
    outcome = outcome_of(asked)
    if not outcome.pods:
        can_tell = (asked.asker, protocol) != ("host", "UDP")
        return Found(outcome.pods, outcome.refused if can_tell else None)
    own = {"pod": CLIENT.ip, "outside": lab.deployment.gateway_ip, "host": HOST1.ip}[asked.asker]
    as_itself = mode_of(lab) == "redirect-to-pod" and not outcome.as_node
    return Found(outcome.pods, refused=False, seen=frozenset({own} if as_itself else ()))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("endpoints", PODS_OF)
def test_every_entry_from_everywhere(lab: Lab, policy: str, endpoints: str) -> None:
    with serving(lab, list(SERVERS), TARGET), published(lab, policy, PODS_OF[endpoints]):
        wanted, got = {}, {}
        for protocol, asked in itertools.product(PROTOCOLS, combinations()):
            if (asked.policy, asked.endpoints) == (policy, endpoints):
                what = (protocol, asked)
                wanted[what] = expected(lab, asked, protocol)
                pods = len(wanted[what].pods)
                result = found(lab, MEMBERS[asked.asker], ADDRESSES[asked.entry], protocol, pods)
                # A pod must not see the client where it is to see the node, or the proxy on it.
                got[what] = result if wanted[what].seen else result._replace(seen=strangers(result.seen))
        wrong = {what: got[what] for what in got if got[what] != wanted[what]}
        assert wrong == {}, [outcome_of(asked).why for _, asked in wrong]
        assert problems(lab) == ()


def strangers(seen: frozenset[str]) -> frozenset[str]:
    """Whom pods saw that are not host1, by any of its addresses."""
    return seen - {HOST1.ip, BRIDGE}


def test_a_pod_reaches_itself_at_every_entry(lab: Lab) -> None:
    with serving(lab, ["server1"], TARGET), published(lab, "Cluster", ("here",)):
        for protocol, entry in itertools.product(PROTOCOLS, ENTRIES):
            pod, seen = request(lab, "server1", ADDRESSES[entry], protocol)
            assert pod == "here"
            assert seen == BRIDGE, "if it saw itself it would answer itself, past the node"
