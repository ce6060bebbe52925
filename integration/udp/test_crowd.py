"""More clients than there is room for: memory and files are bounded, the oldest go first, others go on."""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.restart.load import Load
from integration.sockets import inside
from integration.udp.servers import ask, client, serving
from integration.udp.services import CLUSTER_IP, published
from integration.udp.steady import Steady
from integration.vitals import open_files, resident_bytes
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, SERVER_SERVICE

if TYPE_CHECKING:
    from collections.abc import Generator

PODS = ("server1", "server2")
CROWD = 50_000
RATE = 4_000
"""New clients a second. Of more than a worker can take the kernel drops some, and others' datagrams too."""

SESSIONS = 2_000
ADDRESSES = 4
"""Of the crowd: each has 12,500 ports."""

_MEBIBYTE = 1 << 20


@pytest.fixture
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """A daemon on host1 that serves so many UDP clients at once; the client has more addresses."""
    with Lab(f"{lab_name}-udpc", daemons=False) as made:
        for ip in _addresses():
            made.exec("client", "ip", "address", "add", f"{ip}/24", "dev", "eth0")
        made.start_daemon("host1", "--udp-sessions", str(SESSIONS), "--udp-idle-seconds", "300")
        yield made


def test_a_crowd_of_fifty_thousand(lab: Lab) -> None:
    pid = lab.daemon("host1").pid
    steady = Steady(lab, "client", CLUSTER_IP)
    load = Load(lab, SERVER_SERVICE.frontend, rate=100, threads=2)
    with serving(lab, PODS), published(lab, "echo", PODS), client(lab, "client", CLUSTER_IP) as early:
        ask(early)
        before = open_files(pid), resident_bytes(pid)
        with steady.going_on(), load.going_on():
            seconds = _send_from_everywhere(lab)
            held, resident = open_files(pid) - before[0], resident_bytes(pid) - before[1]
            wait_until("the crowd has been served", lambda: _evicted(lab) >= CROWD - SESSIONS, 30.0)
            rows = lab.rows("host1", "connections", "--service", "default/echo")
        evicted, first = _evicted(lab), f"{CLIENT.ip}:{early.getsockname()[1]}"
    print(f"{CROWD} clients in {seconds:.1f} s, {evicted} sessions gave way, {len(rows)} are left")
    print(f"{held} more files, {resident / _MEBIBYTE:.0f} MiB more")
    print(f"beside it {steady.sent} datagrams, {len(steady.lost)} lost; {load}")
    assert len(rows) == SESSIONS
    assert held <= SESSIONS + 100
    assert resident < 100 * _MEBIBYTE
    clients = {row["client"]: row["age_seconds"] for row in rows}
    assert steady.name in clients, "who speaks is not the oldest"
    assert first not in clients, "who was there first and says nothing is"
    crowd = [int(name.partition(":")[2]) for name in clients if name != steady.name]
    assert min(crowd) >= 20_000 + (CROWD - 2 * SESSIONS) // ADDRESSES, "those who came last are left"
    assert load.failed.total() == 0
    assert steady.lost == []


def _addresses() -> list[str]:
    return [f"10.0.1.{100 + number}" for number in range(ADDRESSES)]


def _send_from_everywhere(lab: Lab) -> float:
    """A datagram from each of so many addresses and ports; returns how long it took."""
    began = time.monotonic()
    with inside(lab, "client"):
        for number in range(CROWD):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((_addresses()[number % ADDRESSES], 20_000 + number // ADDRESSES))
                sock.sendto(b"one of many", (CLUSTER_IP.ip, CLUSTER_IP.port))
    return time.monotonic() - began


def _evicted(lab: Lab) -> int:
    """How many sessions have given way, as the metrics have it."""
    told = lab.exec("host1", "curl", "-s", "http://127.0.0.1:10249/metrics").stdout
    found = re.search(r'connections_ended_total\{reason="evicted"\} (\d+)', told)
    return int(found[1]) if found else 0
