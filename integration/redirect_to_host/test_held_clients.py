"""Clients of a Service without endpoints wait for one, if its author wants it so; on both paths."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from integration.services import publish, published
from integration.sockets import accept, connect, echoes, listen, read_all, reset
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address
from userproxy.model.service import Path

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME, IP = "from-zero", "10.3.241.11"
BACKEND = Address(SERVER1.ip, 7000)
PATIENCE_SECONDS = 5.0

pytestmark = pytest.mark.parametrize("path", [Path.REDIRECT_TO_HOST, Path.REDIRECT_TO_POD])


@contextlib.contextmanager
def held(lab: Lab, path: Path, places: str = "16", timeout: str = "120s") -> Iterator[Address]:
    """A Service without endpoints that holds its clients."""
    with published(
        *(lab, NAME, IP, []),
        path=path,
        no_endpoints="hold",
        hold_connections=places,
        hold_timeout=timeout,
    ) as frontend:
        yield frontend


def waiting(lab: Lab) -> list[str]:
    """The ids of the connections that wait."""
    rows = lab.rows("host1", "connections", "--service", f"default/{NAME}")
    return [row["id"] for row in rows if row["state"] == "waiting"]


def wait_for(lab: Lab, count: int) -> None:
    wait_until(f"{count} wait", lambda: len(waiting(lab)) == count, PATIENCE_SECONDS)


def is_refused(lab: Lab, frontend: Address) -> bool:
    """Whether netfilter refuses a connection; a worker resets it, which may come before connect() returns."""
    try:
        connect(lab, "client", frontend).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def is_reset(client: socket.socket) -> bool:
    """Whether it ends by a reset, and not in order."""
    try:
        read_all(client)
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("member", ["client", "host1"])
def test_whoever_waits_is_served_when_a_pod_appears(lab: Lab, path: Path, member: str) -> None:
    with held(lab, path) as frontend, listen(lab, "server1", BACKEND.port) as listener:
        clients = [connect(lab, member, frontend) for _ in range(3)]
        for number, client in enumerate(clients):
            client.sendall(f"hello {number}".encode())
        wait_for(lab, 3)
        began = time.monotonic()
        publish(lab, NAME, IP, [BACKEND], path=path, no_endpoints="hold")
        servers = [accept(listener) for _ in clients]
        print(f"{path}, {member}: served {(time.monotonic() - began) * 1000:.0f} ms after the pod was there")
        for number, (client, server) in enumerate(zip(clients, servers, strict=True)):
            assert server.recv(100) == f"hello {number}".encode()
            assert echoes(client, server)
        late = connect(lab, member, frontend)  # by the Service's own path
        assert echoes(late, accept(listener))
        assert waiting(lab) == []
        publish(lab, NAME, IP, [], path=path, no_endpoints="hold")
        another = connect(lab, member, frontend)
        wait_for(lab, 1)
        another.close()
        assert all(echoes(*pair) for pair in zip(clients, servers, strict=True))


def test_one_too_many_is_reset_at_once_and_whoever_leaves_gives_up_the_place(lab: Lab, path: Path) -> None:
    with held(lab, path, places="2") as frontend:
        first, second = (connect(lab, "client", frontend) for _ in range(2))
        wait_for(lab, 2)
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):  # it may come before connect() returns
            read_all(connect(lab, "client", frontend))
        print(f"{path}: one too many is reset after {(time.monotonic() - began) * 1000:.1f} ms")
        assert time.monotonic() - began < 1.0
        reset(first)
        wait_for(lab, 1)
        second.close()
        wait_for(lab, 0)
        again = connect(lab, "client", frontend)
        wait_for(lab, 1)
        lab.userproxy("host1", "kill", *waiting(lab))
        assert is_reset(again)


def test_whoever_has_waited_long_enough_is_reset(lab: Lab, path: Path) -> None:
    with held(lab, path, timeout="1s") as frontend:
        began = time.monotonic()
        assert is_reset(connect(lab, "client", frontend))
        seconds = time.monotonic() - began
        print(f"{path}: reset after {seconds:.2f} s of at most 1 s")
        assert seconds >= 1.0


def test_a_pod_that_is_drained_by_hand_is_waited_for_too(lab: Lab, path: Path) -> None:
    with (
        listen(lab, "server1", BACKEND.port) as listener,
        published(lab, NAME, IP, [BACKEND], path=path, no_endpoints="hold") as frontend,
    ):
        lab.userproxy("host1", "drain", str(BACKEND))
        client = connect(lab, "client", frontend)
        wait_for(lab, 1)
        lab.userproxy("host1", "drain", "--undo", str(BACKEND))
        assert echoes(client, accept(listener))


def test_when_its_author_takes_that_back_clients_are_refused(lab: Lab, path: Path) -> None:
    with held(lab, path) as frontend:
        client = connect(lab, "client", frontend)
        wait_for(lab, 1)
        publish(lab, NAME, IP, [], path=path)
        assert is_reset(client)
        # The workers are told before netfilter is: until then another one is reset instead.
        wait_until("clients are refused", lambda: is_refused(lab, frontend), PATIENCE_SECONDS)
