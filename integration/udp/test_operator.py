"""Sessions are seen, ended and drained as connections are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.sockets import PATIENCE_SECONDS
from integration.udp.servers import PORT, ask, client, serving
from integration.udp.services import CLUSTER_IP, LOOPBACK, NODE_PORT, published
from integration.udp.steady import Steady
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, SERVER1, SERVER2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

PODS = ("server1", "server2")
SERVICE = ("--service", "default/echo")
IPS = {"server1": SERVER1.ip, "server2": SERVER2.ip}


@pytest.fixture(autouse=True)
def _served(lab: Lab) -> Iterator[None]:
    with serving(lab, PODS), published(lab, "echo", PODS):
        yield


def test_a_session_is_a_row_among_the_connections(lab: Lab) -> None:
    with client(lab, "client", CLUSTER_IP) as sock:
        pod, peer = ask(sock)
        (row,) = lab.rows("host1", "connections", *SERVICE)
        assert (row["protocol"], row["state"], row["path"]) == ("UDP", "replied", "redirect-to-host")
        assert row["client"] == f"{CLIENT.ip}:{sock.getsockname()[1]}"
        assert row["frontend"] == str(CLUSTER_IP), "what the client has asked"
        assert (row["source"], row["backend"]) == (peer, f"{IPS[pod]}:{PORT}")
        assert (row["bytes_up"], row["bytes_down"] > 10) == (4, True)
        services = [row for row in lab.rows("host1", "services") if row["service"] == "default/echo"]
        assert {row["protocol"] for row in services} == {"UDP"}
        assert {row["family"]: row["connections"] for row in services} == {"IPv4": 1, "IPv6": 0}
        backends = {row["backend"]: row for row in lab.rows("host1", "backends")}
        assert backends[f"{IPS[pod]}:{PORT}"]["connections"] == 1
        assert backends[f"{IPS[pod]}:{PORT}"]["latency_ms"] is not None


def test_each_session_tells_by_which_entry_its_client_came(lab: Lab) -> None:
    with client(lab, "client", NODE_PORT) as one, client(lab, "host1", LOOPBACK) as two:
        ask(one)
        ask(two)
        rows = {row["client"]: row["frontend"] for row in lab.rows("host1", "connections", *SERVICE)}
        assert rows[f"{CLIENT.ip}:{one.getsockname()[1]}"] == str(NODE_PORT)
        assert rows[f"127.0.0.1:{two.getsockname()[1]}"] == str(LOOPBACK)


def test_kill_ends_a_session_and_the_client_s_next_datagram_begins_another(lab: Lab) -> None:
    with client(lab, "client", CLUSTER_IP) as sock:
        before = ask(sock)
        (row,) = lab.rows("host1", "connections", *SERVICE)
        lab.userproxy("host1", "kill", row["id"])
        assert lab.rows("host1", "connections", *SERVICE) == []
        assert ask(sock) != before
        lab.userproxy("host1", "kill", *SERVICE)
        assert lab.rows("host1", "connections", *SERVICE) == []


def test_a_drained_pod_keeps_no_client_and_none_loses_a_datagram(lab: Lab) -> None:
    clients = [Steady(lab, "client", CLUSTER_IP) for _ in range(4)]
    for each in clients:
        each.start()
        each.some(1)
    assert {each.pod for each in clients} == set(PODS)
    lab.userproxy("host1", "drain", f"{SERVER1.ip}:{PORT}")
    try:
        wait_until(
            "all are with the other one",
            lambda: {each.pod for each in clients} == {"server2"},
            PATIENCE_SECONDS,
        )
        states = {row["backend"]: row["state"] for row in lab.rows("host1", "backends")}
        assert states[f"{SERVER1.ip}:{PORT}"] == "draining"
    finally:
        lab.userproxy("host1", "drain", "--undo", f"{SERVER1.ip}:{PORT}")
        for each in clients:
            each.stop()
    assert [each.lost for each in clients] == [[]] * 4
