"""Limits of steered Services, to one connection: in a crowd, and whoever ends, dies or takes over."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.load.load import server
from integration.services import published
from integration.sockets import PATIENCE_SECONDS, connect, inside
from integration.steered.processes import steering_pids
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userproxy.lab.deployment import Lab

PORT = 7300
PODS = {
    "IPv4": (Address("10.3.242.81", 80), [Address(SERVER1.ip, PORT), Address(SERVER2.ip, PORT)]),
    "IPv6": (Address("fd00:10:3:240::81", 80), [Address(SERVER1.ip6, PORT), Address(SERVER2.ip6, PORT)]),
}
CROWD, MOST = 200, 50
SOON_SECONDS = 0.5


@pytest.fixture(scope="module", autouse=True)
def pods(lab: Lab) -> Iterator[None]:
    """Both serve."""
    with contextlib.ExitStack() as servers:
        for pod in ("server1", "server2"):
            servers.enter_context(server(["ip", "netns", "exec", lab.namespace(pod)], pod, PORT))
        yield


def crowd(lab: Lab, frontend: Address, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Very many clients at once: those of them that are connected."""
    clients = []
    with inside(lab, "client"):
        for _ in range(CROWD):
            client = socket.socket(socket.AF_INET6 if frontend.is_ipv6 else socket.AF_INET)
            clients.append(stack.enter_context(client))
            client.settimeout(0)
            client.connect_ex((frontend.ip, frontend.port))
    let_in, undecided = [], clients
    deadline = time.monotonic() + PATIENCE_SECONDS
    while undecided:
        _, decided, _ = select.select([], undecided, [], deadline - time.monotonic())
        assert decided
        let_in += [each for each in decided if not each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
        undecided = [each for each in undecided if each not in decided]
    return let_in


def refused(lab: Lab, frontend: Address) -> bool:
    """Whether one more client is."""
    try:
        connect(lab, "host1", frontend).close()
    except ConnectionRefusedError:
        return True
    return False


def kill(lab: Lab) -> None:
    """The process dies."""
    for pid in steering_pids(lab):
        os.kill(pid, signal.SIGKILL)


def hang_up(lab: Lab) -> None:
    """The daemon starts anew, and the process is succeeded."""
    os.kill(lab.daemon("host1").pid, signal.SIGHUP)


def turned_away(lab: Lab) -> float:
    """How many clients have been refused for a connection too many."""
    told = lab.exec("host1", "curl", "-sS", "http://127.0.0.1:10249/metrics").stdout
    (line,) = (each for each in told.splitlines() if each.startswith("userproxy_clients_turned_away_total "))
    return float(line.split()[1])


def test_the_kernel_keeps_those_of_a_service_whose_pods_it_chooses(lab: Lab) -> None:
    frontend, pods = PODS["IPv4"]
    before = turned_away(lab)
    with published(
        lab,
        "direct",
        frontend.ip,
        pods,
        path="redirect-to-pod",
        max_connections="3",
        max_connections_per_client="2",
    ) as frontend:
        mine = [connect(lab, "client", frontend) for _ in range(2)]
        with pytest.raises(ConnectionRefusedError):
            connect(lab, "client", frontend)
        mine.append(connect(lab, "host1", frontend))
        assert refused(lab, frontend)
        wait_until("it is counted", lambda: turned_away(lab) >= before + 2, PATIENCE_SECONDS)
        for each in mine:
            each.close()
        wait_until("there is room", lambda: not refused(lab, frontend), PATIENCE_SECONDS)


@pytest.mark.parametrize(("family", "end"), [("IPv4", hang_up), ("IPv6", kill)])
def test_of_a_crowd_as_many_are_let_in_as_may_and_nobody_more_by_the_next_process(
    lab: Lab, family: str, end: Callable[[Lab], None]
) -> None:
    frontend, pods = PODS[family]
    with (
        published(lab, "crowded", frontend.ip, pods, max_connections=str(MOST)) as frontend,
        contextlib.ExitStack() as stack,
    ):
        let_in = crowd(lab, frontend, stack)
        assert len(let_in) == MOST
        before = steering_pids(lab)
        end(lab)
        let_in_since = tries = 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        until = deadline
        while time.monotonic() < until:
            let_in_since += not refused(lab, frontend)
            tries += 1
            if until == deadline and steering_pids(lab) not in ([], before):
                until = time.monotonic() + SOON_SECONDS
        print(f"{family}, {end.__name__}: of {tries} more {let_in_since} were let in")
        assert (let_in_since, until < deadline) == (0, True)
        let_in[0].close()
        wait_until("there is room", lambda: not refused(lab, frontend), PATIENCE_SECONDS)
