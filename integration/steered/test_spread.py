"""Ten thousand steered connections that live at once, and how they are spread over two pods."""

from __future__ import annotations

import random
import resource
import selectors
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.services import published
from integration.sockets import PATIENCE_SECONDS, inside, reset
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Generator

    from userproxy.lab.deployment import Lab

CONNECTIONS = 10_000
AT_ONCE = 250
ENDED = 3_000
PORT = 7300
PODS = {"server1": Address(SERVER1.ip, PORT), "server2": Address(SERVER2.ip, PORT)}
ESTABLISHED = "01"  # in /proc/net/tcp


@pytest.fixture(scope="module", autouse=True)
def room_for_clients() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 1000:
        pytest.skip(f"this process may open {hard} files, and the clients need {CONNECTIONS + 1000}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def listeners(lab: Lab) -> Generator[None]:
    """Pods that accept nobody: who connects stays in the listen queue, established."""
    made = []
    for pod in PODS:
        lab.exec(pod, "sysctl", "-qw", f"net.core.somaxconn={CONNECTIONS}")
        with inside(lab, pod):
            made.append(socket.create_server(("", PORT), backlog=CONNECTIONS))
    yield
    for each in made:
        each.close()


def opened(lab: Lab, frontend: Address, count: int) -> list[socket.socket]:
    """So many clients, all connected, of whom some begin at the same time."""
    clients: list[socket.socket] = []
    while len(clients) < count:
        with inside(lab, "client"), selectors.DefaultSelector() as pending:
            for _ in range(AT_ONCE):
                client = socket.socket()
                client.setblocking(False)  # noqa: FBT003 - takes no keyword
                client.connect_ex((frontend.ip, frontend.port))
                pending.register(client, selectors.EVENT_WRITE)
                clients.append(client)
            while pending.get_map():
                ready = pending.select(PATIENCE_SECONDS)
                assert ready, f"{len(pending.get_map())} clients are still connecting"
                for key, _ in ready:
                    pending.unregister(key.fileobj)
    assert {client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for client in clients} == {0}
    return clients


def spread(lab: Lab) -> list[int]:
    """How many connections each pod has, as its own kernel tells."""
    return [established(lab, pod) for pod in PODS]


def established(lab: Lab, pod: str) -> int:
    with inside(lab, pod):
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return sum(each[3] == ESTABLISHED and each[1].endswith(f":{PORT:04X}") for each in fields)


def test_in_turn_each_pod_has_exactly_its_share(lab: Lab) -> None:
    with published(lab, "turns", "10.3.241.41", [*PODS.values()]) as frontend:
        clients = opened(lab, frontend, CONNECTIONS)
        print(f"round robin: {len(clients)} connections, of which the pods have {spread(lab)}")
        assert spread(lab) == [CONNECTIONS // 2] * 2
        for each in clients:
            reset(each)


def test_with_least_connections_the_pods_are_level_also_when_some_have_ended(lab: Lab) -> None:
    chance = random.Random(0)  # noqa: S311 - no secret
    with published(lab, "level", "10.3.241.42", [*PODS.values()], balance="least-connections") as frontend:
        clients = opened(lab, frontend, CONNECTIONS)
        first = spread(lab)
        chance.shuffle(clients)
        for each in sorted(clients[:ENDED], key=lambda client: client.getsockname()):
            reset(each)
        left = spread(lab)
        wait_until("their end is heard of", lambda: shown(lab) == CONNECTIONS - ENDED, PATIENCE_SECONDS)
        more = opened(lab, frontend, ENDED)
        again = spread(lab)
        print(f"least connections: {first}; {ENDED} end: {left}; and as many come: {again}")
        assert max(first) - min(first) <= 1
        assert max(again) - min(again) <= 1
        for each in (*clients[ENDED:], *more):
            reset(each)


def shown(lab: Lab) -> int:
    """How many connections the Service is said to have."""
    (row,) = (row for row in lab.rows("host1", "services") if row["service"] == "default/level")
    return int(row["connections"])
