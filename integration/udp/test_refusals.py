"""Pods that refuse, strangers who answer, and datagrams that nobody sent to a Service."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from integration.services import host_port
from integration.sockets import PATIENCE_SECONDS, inside
from integration.udp.servers import PORT, Echo, ask, client, echoes, serving
from integration.udp.services import CLUSTER_IP, EXTERNAL_IP, published
from integration.udp.steady import Steady
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, SERVER1
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

PODS = ("server1", "server2")


def test_a_pod_where_nobody_listens_costs_no_client_a_datagram(lab: Lab) -> None:
    with serving(lab, ["server2"]), published(lab, "echo", PODS):
        for _ in range(10):
            with client(lab, "client", CLUSTER_IP) as sock:
                assert ask(sock)[0] == "server2"
        states = {row["backend"]: row["state"] for row in lab.rows("host1", "backends")}
        assert states[f"{SERVER1.ip}:{PORT}"] == "ejected"


def test_the_program_in_a_pod_ends_and_its_clients_go_to_another_one(lab: Lab) -> None:
    with serving(lab, ["server2"]), published(lab, "echo", PODS):
        first = Echo(lab, "server1")
        clients = [Steady(lab, "client", CLUSTER_IP) for _ in range(6)]
        for each in clients:
            each.start()
            each.some(2)
        assert {each.pod for each in clients} == set(PODS)
        first.close()
        for each in clients:
            each.some(4)
            each.stop()
        lost = [len(each.lost) for each in clients]
        print(f"a pod's program ends: {sum(each.sent for each in clients)} datagrams, lost {lost}")
        assert max(lost) <= 1, "one may have been in the pod's hands"
        assert {each.pod for each in clients} == {"server2"}


def test_nobody_but_its_pod_can_answer_a_client(lab: Lab) -> None:
    with (
        serving(lab, ["server1"]),
        published(lab, "echo", ["server1"]),
        client(lab, "client", CLUSTER_IP) as sock,
    ):
        _, peer = ask(sock)
        seen = Address.parse(peer)
        listener = Address(HOST1.ip, host_port(lab, "echo"))
        ours = Address(sock.getsockname()[0], sock.getsockname()[1])
        for member in ("server2", "client", "gateway", "host1"):
            for target in (seen, listener, ours):
                with inside(lab, member):
                    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with stranger:
                    stranger.sendto(b"believe me", (target.ip, target.port))
        assert echoes(sock, 100), "the next thing that it hears is its pod's answer"
        assert ask(sock) == ("server1", peer)


@pytest.mark.parametrize("member", ["client", "host1", "gateway", "server2"])
def test_whoever_asks_the_listener_s_own_port_is_refused(lab: Lab, member: str) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS):
        listener = Address(HOST1.ip, host_port(lab, "echo"))
        with client(lab, member, EXTERNAL_IP if member == "gateway" else CLUSTER_IP) as served:
            if member != "server2":
                ask(served)
            with client(lab, member, listener) as sock:
                sock.send(b"who?")
                with pytest.raises(ConnectionRefusedError):
                    sock.recv(100)


def test_a_listener_s_port_stays_closed_to_a_client_that_has_a_session_too(lab: Lab) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS), client(lab, "client", CLUSTER_IP) as sock:
        ask(sock)
        listener = Address(HOST1.ip, host_port(lab, "echo"))
        port = sock.getsockname()[1]
        with inside(lab, "client"):
            same = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with same:
            same.settimeout(3.0)
            sock.close()
            same.bind(("", port))
            same.connect((listener.ip, listener.port))
            same.send(b"who?")
            with pytest.raises(ConnectionRefusedError):
                same.recv(100)


def test_a_session_outlives_what_conntrack_knows_of_its_client(lab: Lab) -> None:
    with (
        serving(lab, PODS) as servers,
        published(lab, "echo", PODS),
        client(lab, "client", CLUSTER_IP) as sock,
    ):
        first = ask(sock)
        lab.exec("host1", "conntrack", "-F")
        pod, peer = first
        servers[pod].tell(peer, b"news that nothing would translate back")
        wait_until("it is dropped", lambda: _not_sent(lab) > 0, PATIENCE_SECONDS)
        assert ask(sock) == first, "the client's next datagram is of the same session"
        servers[pod].tell(peer, b"news")
        assert sock.recv(100) == b"news"


def _not_sent(lab: Lab) -> int:
    told = lab.exec("host1", "curl", "-s", "http://127.0.0.1:10249/metrics").stdout
    found = re.search(r'datagrams_dropped_total\{reason="not-sent"\} (\d+)', told)
    return int(found[1]) if found else 0
