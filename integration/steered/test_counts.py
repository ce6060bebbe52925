"""Steered connections as an operator sees them, and what is kept by them: balance and limits."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from integration.load.load import server
from integration.services import published
from integration.sockets import PATIENCE_SECONDS, connect, reset
from integration.steered.processes import steering_pids
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator

PORT = 7000
PODS = [Address(SERVER1.ip, PORT), Address(SERVER2.ip, PORT)]


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    with Lab(f"{lab_name}-counts", daemons=False) as made, contextlib.ExitStack() as servers:
        for pod in ("server1", "server2"):
            servers.enter_context(server(["ip", "netns", "exec", made.namespace(pod)], pod, PORT))
        made.start_daemon("host1", "--mode", "steered", "--on-stop", "remove")
        yield made


def shown(lab: Lab, name: str) -> tuple[int, list[int]]:
    """How many connections a Service is said to have, and each of its pods, the one with the fewest first."""
    (service,) = (row for row in lab.rows("host1", "services") if row["service"] == f"default/{name}")
    pods = [row for row in lab.rows("host1", "backends") if row["service"] == f"default/{name}"]
    return service["connections"], sorted(row["connections"] for row in pods)


def wait_for(lab: Lab, name: str, total: int, *pods: int) -> None:
    """Wait until so much is shown, which is counted once a second."""
    wait_until(
        f"{total} connections are shown", lambda: shown(lab, name) == (total, [*pods]), PATIENCE_SECONDS
    )


def opened(lab: Lab, frontend: Address, times: int, member: str = "client") -> list[socket.socket]:
    """So many connections that stay."""
    return [connect(lab, member, frontend) for _ in range(times)]


def end(connections: list[socket.socket]) -> None:
    """All of them, in order."""
    for each in connections:
        each.close()


def refused(lab: Lab, frontend: Address, member: str = "client") -> bool:
    """Whether a connection that is tried now is refused."""
    try:
        connect(lab, member, frontend).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_lives_is_counted_also_by_a_process_that_did_not_see_it_begin(lab: Lab) -> None:
    with published(lab, "fewest", "10.3.242.1", PODS, balance="least-connections") as frontend:
        held = opened(lab, frontend, 200)
        wait_for(lab, "fewest", 200, 100, 100)
        end(held[::2])
        for each in held[1:41:2]:
            reset(each)
        wait_for(lab, "fewest", 80, 0, 80)
        more = opened(lab, frontend, 100)
        wait_for(lab, "fewest", 180, 90, 90)
        (pid,) = steering_pids(lab)
        os.kill(pid, signal.SIGKILL)
        wait_until(
            "there is another steering process",
            lambda: steering_pids(lab) not in ([], [pid]),
            PATIENCE_SECONDS,
        )
        end(more)
        wait_for(lab, "fewest", 80, 0, 80)
        more = opened(lab, frontend, 80)
        wait_for(lab, "fewest", 160, 80, 80)
        end([*held, *more])
        wait_for(lab, "fewest", 0, 0, 0)


def test_limits_are_kept_to_one_connection(lab: Lab) -> None:
    with published(
        lab, "limited", "10.3.242.2", PODS, max_connections="5", max_connections_per_client="3"
    ) as frontend:
        held = opened(lab, frontend, 3)
        assert refused(lab, frontend)
        others = opened(lab, frontend, 2, "host1")
        assert refused(lab, frontend, "host1")
        end(held[:1])
        wait_until("there is room", lambda: not refused(lab, frontend, "host1"), PATIENCE_SECONDS)
        end([*held, *others])
