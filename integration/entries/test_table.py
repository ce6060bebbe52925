"""The table of `userproxy.tests.entries`, with real packets: TCP and UDP, IPv4 and IPv6, on every path."""

from __future__ import annotations

import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.redirect_to_pod.servers import serving
from integration.services import problems
from integration.sockets import PATIENCE_SECONDS, connect, udp_from
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, REFERENCE, SERVER1, SERVER2
from userproxy.model.address import Address, IpFamily
from userproxy.ops.client import AdminClient
from userproxy.tests.entries import ENTRIES, PODS_OF, POLICIES, Asked, combinations, outcome_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

TARGET, NODE_PORT = 7100, 30090
PROTOCOLS = ("TCP", "UDP")
ADDRESSES = {
    IpFamily.IPV4: {
        "cluster IP": Address("10.3.240.9", 90),
        "node port": Address(HOST1.ip, NODE_PORT),
        "external IP": Address("192.0.2.90", 90),
        "load balancer IP": Address("192.0.2.91", 90),
    },
    IpFamily.IPV6: {
        "cluster IP": Address("fd00:10:3:240::9", 90),
        "node port": Address(HOST1.ip6, NODE_PORT),
        "external IP": Address("2001:db8::90", 90),
        "load balancer IP": Address("2001:db8::91", 90),
    },
}
WAYS = list(itertools.product(PROTOCOLS, IpFamily))
MEMBERS = {"pod": "client", "host": "host1", "outside": "gateway"}
PODS = {"here": SERVER1, "elsewhere": SERVER2}
CLIENTS = {
    IpFamily.IPV4: {"pod": CLIENT.ip, "host": HOST1.ip, "outside": REFERENCE.gateway_ip},
    IpFamily.IPV6: {"pod": CLIENT.ip6, "host": HOST1.ip6, "outside": REFERENCE.gateway_ip6},
}
BRIDGE = {IpFamily.IPV4: HOST1.bridge_ip, IpFamily.IPV6: HOST1.bridge_ip6}
"""Of host1, where its pods are."""
SERVERS = {"server1": "here", "server2": "elsewhere"}

OFTEN = 24
"""So many requests, at random, miss one of two pods once in 8 million times."""
SHORT = 0.7
"""Who gets no answer for so long gets none. The answers come within milliseconds."""
MODES = ("redirect-to-host", "redirect-to-pod", "steered")
"""Of the daemon."""


class Question(NamedTuple):
    """A combination, and how it is asked."""

    asked: Asked
    protocol: str
    family: IpFamily


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
    """A Service of both families with every kind of entry, under this policy, for the time of the block."""
    ports = [Port(90, TARGET, protocol.lower(), protocol, NODE_PORT) for protocol in PROTOCOLS]
    service = objects.service(
        "table",
        at("cluster IP"),
        ports,
        ingress=[{"ip": ip} for ip in at("load balancer IP")],
        type="LoadBalancer",
        externalIPs=at("external IP"),
        internalTrafficPolicy=policy,
        externalTrafficPolicy=policy,
    )
    nodes = {"here": HOST1.name, "elsewhere": HOST2.name}
    by_family = (
        [objects.endpoint(PODS[pod].ip, nodes[pod]) for pod in pods],
        [objects.endpoint(PODS[pod].ip6, nodes[pod]) for pod in pods],
    )
    slices = [
        objects.endpoint_slice(f"table-{number}", "table", ports, endpoints)
        for number, endpoints in enumerate(by_family)
    ]
    lab.write_manifest("table.json", json.dumps(objects.listed([service, *slices])))
    entries = {(protocol, str(each)) for protocol, family in WAYS for each in ADDRESSES[family].values()}
    wait_until("the Service is there", lambda: frontends(lab) >= entries, PATIENCE_SECONDS)
    try:
        yield
    finally:
        lab.remove_manifest("table.json")
        wait_until("the Service is gone", lambda: not frontends(lab), PATIENCE_SECONDS)


def at(entry: str) -> list[str]:
    """The IPs of an entry, of each family."""
    return [addresses[entry].ip for addresses in ADDRESSES.values()]


def frontends(lab: Lab) -> set[tuple[str, str]]:
    """Those that the daemon shows of it, with the protocol of each."""
    with AdminClient(lab.admin_socket("host1")) as admin:
        rows = [row for row in admin.services() if row.service.startswith("default/table:")]
    return {(row.protocol, frontend) for row in rows for frontend in row.frontends}


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
    return SERVERS[server.partition(":")[0]], seen


def found(lab: Lab, question: Question, wanted: Found) -> Found:
    """What comes of it, asked until all pods that are wanted have answered, or often."""
    asked, protocol, family = question
    member, address = MEMBERS[asked.asker], ADDRESSES[family][asked.entry]
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
        if len(pods) == len(wanted.pods) > 1:
            break
    if not wanted.seen:  # a pod is to see the node, or the proxy on it, by any of its addresses
        seen -= {CLIENTS[family]["host"], BRIDGE[family]}
    return Found(frozenset(pods), refused=False, seen=frozenset(seen))


def expected(lab: Lab, question: Question) -> Found:
    """By the table; whom pods see is left out where the table does not say."""
    asked, protocol, family = question
    outcome = outcome_of(asked)
    if not outcome.pods:
        can_tell = (asked.asker, protocol) != ("host", "UDP")
        return Found(outcome.pods, outcome.refused if can_tell else None)
    as_itself = mode_of(lab) != "redirect-to-host" and not outcome.as_node
    seen = {CLIENTS[family][asked.asker]} if as_itself else set()
    return Found(outcome.pods, refused=False, seen=frozenset(seen))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("endpoints", PODS_OF)
def test_every_entry_from_everywhere(lab: Lab, policy: str, endpoints: str) -> None:
    with serving(lab, list(SERVERS), TARGET), published(lab, policy, PODS_OF[endpoints]):
        questions = [
            Question(asked, protocol, family)
            for asked, (protocol, family) in itertools.product(combinations(), WAYS)
            if (asked.policy, asked.endpoints) == (policy, endpoints)
        ]
        wanted = [expected(lab, question) for question in questions]
        with ThreadPoolExecutor(len(WAYS)) as clients:  # at once: who is dropped waits in vain
            got = list(clients.map(found, itertools.repeat(lab), questions, wanted))
        wrong = {
            question: came for question, came, due in zip(questions, got, wanted, strict=True) if came != due
        }
        assert wrong == {}, [outcome_of(question.asked).why for question in wrong]
        assert problems(lab) == ()


def test_a_pod_reaches_itself_at_every_entry(lab: Lab) -> None:
    with serving(lab, ["server1"], TARGET), published(lab, "Cluster", ("here",)):
        for (protocol, family), entry in itertools.product(WAYS, ENTRIES):
            pod, seen = request(lab, "server1", ADDRESSES[family][entry], protocol)
            assert pod == "here"
            assert seen == BRIDGE[family], "if it saw itself it would answer itself, past the node"
