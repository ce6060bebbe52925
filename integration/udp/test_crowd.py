"""More clients than there is room for: memory and files are bounded, the oldest go first, others go on."""

from __future__ import annotations

import collections
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.restart.load import Load
from integration.sockets import PATIENCE_SECONDS, inside
from integration.udp.servers import ask, client, serving
from integration.udp.services import CLUSTER_IP, published
from integration.udp.steady import Steady
from integration.vitals import open_files, resident_bytes
from userproxy.lab.deployment import Lab
from userproxy.lab.topology import CLIENT, SERVER_SERVICE

if TYPE_CHECKING:
    from collections.abc import Generator

PODS = ("server1", "server2")
CROWD = 50_000
AT_ONCE = 500
"""Of them wait for their answers. Of more than a listener's buffer holds the kernel would drop some."""

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
            seconds = _ask_from_everywhere(lab)
            held, resident = open_files(pid) - before[0], resident_bytes(pid) - before[1]
            rows = lab.rows("host1", "connections", "--service", "default/echo")
        evicted, first = _evicted(lab), f"{CLIENT.ip}:{early.getsockname()[1]}"
    print(f"{CROWD} clients in {seconds:.1f} s, {evicted} sessions gave way, {len(rows)} are left")
    print(f"{held} more files, {resident / _MEBIBYTE:.0f} MiB more")
    print(f"beside it {steady.sent} datagrams, {len(steady.lost)} lost; {load}")
    assert evicted >= CROWD - SESSIONS
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


def _ask_from_everywhere(lab: Lab) -> float:
    """Ask from each of so many addresses and ports, and wait for each answer; returns how long it took."""
    began = time.monotonic()
    waiting: collections.deque[socket.socket] = collections.deque()
    with inside(lab, "client"):
        for number in range(CROWD):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(PATIENCE_SECONDS)
            sock.bind((_addresses()[number % ADDRESSES], 20_000 + number // ADDRESSES))
            sock.connect((CLUSTER_IP.ip, CLUSTER_IP.port))
            sock.send(b"one of many")
            waiting.append(sock)
            if len(waiting) == AT_ONCE:
                _hear(waiting.popleft())
        while waiting:
            _hear(waiting.popleft())
    return time.monotonic() - began


def _hear(sock: socket.socket) -> None:
    with sock:
        assert sock.recv(100) == b"one of many"


def _evicted(lab: Lab) -> int:
    """How many sessions have given way, as the metrics have it."""
    told = lab.exec("host1", "curl", "-s", "http://127.0.0.1:10249/metrics").stdout
    found = re.search(r'connections_ended_total\{reason="evicted"\} (\d+)', told)
    return int(found[1]) if found else 0
