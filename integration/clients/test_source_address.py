"""Pods see the client's own address, where its answers come back through the node; else the node's."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration.daemon.traces import assert_same, kernel_state
from integration.restart.load import has_started, workers
from integration.sockets import PATIENCE_SECONDS, connect, echoes, inside, read_all
from integration.vitals import has_no_privilege
from userproxy.lab import objects
from userproxy.lab.deployment import Lab
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, HOST1, HOST2, REFERENCE, SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

TARGET = 7300
VIPS = {4: "192.0.2.80", 6: "2001:db8::80"}
FAR_VIPS = {4: "192.0.2.81", 6: "2001:db8::81"}
PODS = {"server1": {4: SERVER1.ip, 6: SERVER1.ip6}, "server2": {4: SERVER2.ip, 6: SERVER2.ip6}}
SERVICES = {"server1": VIPS, "server2": FAR_VIPS}
GATEWAY = {4: REFERENCE.gateway_ip, 6: REFERENCE.gateway_ip6}
CLIENTS = {4: CLIENT.ip, 6: CLIENT.ip6}
NODE = {4: {HOST1.ip, HOST1.bridge_ip}, 6: {HOST1.ip6, HOST1.bridge_ip6}}
HOST = {4: HOST1.ip, 6: HOST1.ip6}

Ends = tuple[socket.socket, socket.socket, Address]
"""The client's, the pod's, and whom the pod sees."""


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment without daemons; the gateway is a client from outside."""
    with Lab(f"{lab_name}-source", daemons=False) as made:
        for network, via in (("192.0.2.0/24", HOST1.ip), ("2001:db8::/64", HOST1.ip6)):
            made.exec(made.deployment.gateway, "ip", "route", "add", network, "via", via)
        made.write_manifest("kept.json", json.dumps(objects.listed(written())))
        yield made


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Lab]:
    """With a daemon on host1, which leaves nothing behind."""
    before = kernel_state(lab)
    started(lab, "--on-stop", "remove")
    yield lab
    daemon = lab.daemon("host1")
    daemon.send(signal.SIGTERM)
    daemon.wait(PATIENCE_SECONDS)
    assert_same(kernel_state(lab), before)
    assert "Traceback" not in daemon.output()


def written() -> list[objects.Object]:
    """A Service of both families for each pod."""
    ports = [Port(80, TARGET)]
    metadata: objects.Metadata = {
        "annotations": {"userproxy.dev/source-address": "client", "userproxy.dev/health-check": "off"}
    }
    found = []
    for number, (pod, vips) in enumerate(SERVICES.items()):
        ips = [f"10.3.240.{80 + number}", f"fd00:10:3:240::{80 + number}"]
        found.append(objects.service(pod, ips, ports, metadata=metadata, externalIPs=list(vips.values())))
        found += [
            objects.endpoint_slice(
                f"{pod}-{family}",
                pod,
                ports,
                [objects.endpoint(ip, HOST1.name if number == 0 else HOST2.name)],
            )
            for family, ip in PODS[pod].items()
        ]
    return found


def started(lab: Lab, *options: str) -> None:
    lab.start_daemon("host1", "--host-ip", f"{HOST1.ip},{HOST1.ip6}", "--drain-seconds", "1", *options)
    wait_until("both are served", lambda: len(lab.rows("host1", "services")) >= 2 * len(SERVICES), 10.0)


@contextlib.contextmanager
def connected(lab: Lab, member: str, pod: str, family: int = 4) -> Iterator[Ends]:
    """A connection from a member of the lab to a pod's Service, over which bytes go both ways."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with inside(lab, pod):
        listener = socket.create_server((PODS[pod][family], TARGET), family=kind)
    listener.settimeout(PATIENCE_SECONDS)
    with listener, connect(lab, member, Address(SERVICES[pod][family], 80)) as client:
        server, peer = listener.accept()
        server.settimeout(PATIENCE_SECONDS)
        with server:
            assert echoes(client, server)
            yield client, server, Address(*peer[:2])


def sources(lab: Lab) -> dict[str, str]:
    """By id, where the pods see the live connections come from, as the daemon has it."""
    return {row["id"]: row["source"] for row in lab.rows("host1", "connections")}


def forget_neighbours(lab: Lab) -> None:
    """The client has been plugged in elsewhere."""
    for pod in ("client", "server1"):
        lab.exec(pod, "ip", "neighbour", "flush", "dev", "eth0")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("member", "pod", "seen"),
    [
        ("client", "server1", {4: {CLIENTS[4]}, 6: {CLIENTS[6]}}),
        ("client", "server2", {4: {CLIENTS[4]}, 6: {CLIENTS[6]}}),
        ("gateway", "server1", {4: {GATEWAY[4]}, 6: {GATEWAY[6]}}),
        ("gateway", "server2", NODE),
        ("host1", "server1", {4: {HOST[4]}, 6: {HOST[6]}}),
        ("host1", "server2", {4: {HOST[4]}, 6: {HOST[6]}}),
    ],
)
def test_whom_pods_see(served: Lab, member: str, pod: str, seen: dict[int, set[str]], family: int) -> None:
    with connected(served, member, pod, family) as (client, server, peer):
        assert peer.ip in seen[family]
        assert list(sources(served).values()) == [str(peer)]
        client.sendall(b"all of it")
        client.shutdown(socket.SHUT_WR)
        assert read_all(server) == b"all of it"
        server.sendall(b"x" * 1_000_000)
        server.close()
        assert read_all(client) == b"x" * 1_000_000


def test_a_bridge_that_netfilter_does_not_see_and_pods_on_interfaces_of_their_own(served: Lab) -> None:
    """What two pods on that bridge say to each other goes past the host; so the node's address is used."""
    lab = served
    switch = "net.bridge.bridge-nf-call-iptables"
    lab.exec("host1", "sysctl", "-qw", f"{switch}=0")
    try:
        with connected(lab, "client", "server1") as (_, _, peer):
            assert peer.ip in NODE[4]
            assert list(sources(lab).values()) == [str(peer)]
        metrics = lab.exec("host1", "curl", "-sS", "http://127.0.0.1:10249/metrics").stdout
        assert 'userproxy_backend_sources_total{source="node"}' in metrics
        with connected(lab, "client", "server2") as (_, _, peer):
            assert peer.ip == CLIENT.ip
        lab.exec("host1", "ip", "link", "set", "client", "nomaster")
        lab.exec("host1", "ip", "route", "add", f"{CLIENT.ip}/32", "dev", "client")
        for device in ("client", "cbr0"):
            lab.exec("host1", "sysctl", "-qw", f"net.ipv4.conf.{device}.proxy_arp=1")
        forget_neighbours(lab)
        with connected(lab, "client", "server1") as (_, _, peer):
            assert peer.ip == CLIENT.ip
    finally:
        lab.exec("host1", "ip", "route", "delete", f"{CLIENT.ip}/32", "dev", "client", check=False)
        for device in ("client", "cbr0"):
            lab.exec("host1", "sysctl", "-qw", f"net.ipv4.conf.{device}.proxy_arp=0")
        lab.exec("host1", "ip", "link", "set", "client", "master", "cbr0")
        lab.exec("host1", "ip", "link", "set", "client", "type", "bridge_slave", "hairpin", "on")
        lab.exec("host1", "sysctl", "-qw", f"{switch}=1")
        forget_neighbours(lab)


def test_reload_kill_and_others_that_masquerade(served: Lab) -> None:
    lab = served
    others = "table ip others { chain post { type nat hook postrouting priority 100; masquerade; }; }"
    lab.exec("host1", "nft", "-f", "-", stdin=others)
    try:
        with connected(lab, "client", "server2") as (client, server, peer):
            assert peer.ip == CLIENT.ip
            lab.daemon("host1").send(signal.SIGHUP)
            wait_until("it started anew", partial(has_started, lab, 2), 15.0)
            lab.wait_for_daemon("host1")
            assert echoes(client, server)
            ((name, source),) = sources(lab).items()
            assert source == str(peer)
            with connected(lab, "gateway", "server1") as (_, _, other):
                assert other.ip == REFERENCE.gateway_ip
            assert all(map(has_no_privilege, workers(lab)))
            lab.userproxy("host1", "kill", name)
            for end in (client, server):
                with pytest.raises(ConnectionResetError):
                    read_all(end)
    finally:
        lab.exec("host1", "nft", "delete", "table", "ip", "others")
