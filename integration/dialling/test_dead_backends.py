"""A backend that cannot be reached costs its clients a moment; never the connection, if another one can."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.services import publish, published
from integration.sockets import accept, connect, echoes, listen, pair
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME, IP = "half-dead", "10.3.241.20"
DEAD, ALIVE = Address(SERVER1.ip, 7001), Address(SERVER2.ip, 7002)


@pytest.fixture
def blackhole(lab: Lab) -> Iterator[None]:
    """server1 does not answer on some ports any more: neither SYN-ACK nor RST."""
    lab.exec("server1", "nft", "-f", "-", stdin=BLACKHOLE)
    yield
    lab.exec("server1", "nft", "delete", "table", "inet", "blackhole")


BLACKHOLE = """
table inet blackhole {
    chain input {
        type filter hook input priority 0;
        tcp dport 7001-7009 drop
    }
}
"""


def timed(lab: Lab, frontend: Address, listener: socket.socket, count: int) -> list[float]:
    """So many connections in turn, which all work: the seconds until each one's first byte was back."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        client, server = pair(lab, frontend, listener)
        assert echoes(client, server)
        took.append(time.monotonic() - began)
        client.close()
        server.close()
    return took


def test_one_of_two_refuses_and_every_request_succeeds(lab: Lab) -> None:
    with (
        listen(lab, "server2", ALIVE.port) as listener,
        published(lab, NAME, IP, [DEAD, ALIVE]) as frontend,
    ):
        took = timed(lab, frontend, listener, 50)
    print(
        f"50 of 50 connections with one of two backends refusing; the slowest took {max(took) * 1000:.0f} ms"
    )
    assert max(took) < 0.5


@pytest.mark.usefixtures("blackhole")
def test_one_of_two_does_not_answer_and_costs_one_second(lab: Lab) -> None:
    with (
        listen(lab, "server2", ALIVE.port) as listener,
        published(lab, NAME, IP, [DEAD, ALIVE]) as frontend,
    ):
        took = timed(lab, frontend, listener, 4)
    print(
        "one of two backends does not answer; connections took", ", ".join(f"{each:.2f} s" for each in took)
    )
    slow = [seconds for seconds in took if seconds > 0.5]
    assert slow, "the dead backend was never tried"
    assert all(0.95 < seconds < 1.5 for seconds in slow)


@pytest.mark.usefixtures("blackhole")
@pytest.mark.parametrize("dead", [3, 9])
def test_all_are_dead_and_the_client_is_reset_within_five_seconds(lab: Lab, dead: int) -> None:
    pods = [Address(SERVER1.ip, 7001 + number) for number in range(dead)]
    with published(lab, NAME, IP, pods) as frontend:
        began = time.monotonic()
        with connect(lab, "client", frontend) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        seconds = time.monotonic() - began
    print(f"none of {dead} backends answers: reset after {seconds:.2f} s")
    assert min(dead, 5) - 0.1 < seconds < 5.5


def test_all_refuse_and_the_client_is_reset_at_once(lab: Lab) -> None:
    with published(lab, NAME, IP, [DEAD, Address(SERVER2.ip, 7009)]) as frontend:
        began = time.monotonic()
        with pytest.raises(ConnectionResetError), connect(lab, "client", frontend) as client:
            client.recv(1)
        assert time.monotonic() - began < 0.5


@pytest.mark.usefixtures("blackhole")
def test_nobody_waits_for_those_who_wait_for_the_dead(lab: Lab) -> None:
    """200 clients of a dead Service, and then one of a Service that lives; both on the same daemon."""
    with (
        listen(lab, "server2", ALIVE.port) as listener,
        published(lab, NAME, IP, [DEAD]) as dead,
        published(lab, "alive", "10.3.241.21", [ALIVE]) as alive,
    ):
        waiting = [connect(lab, "client", dead) for _ in range(200)]
        took = timed(lab, alive, listener, 20)
        for each in waiting:
            with pytest.raises(ConnectionResetError):
                each.recv(1)
            each.close()
    print(f"beside 200 clients of a dead Service, the slowest connection took {max(took) * 1000:.0f} ms")
    assert max(took) < 0.5


@pytest.mark.usefixtures("blackhole")
def test_what_a_client_says_while_a_backend_is_sought_arrives(lab: Lab) -> None:
    with (
        listen(lab, "server2", ALIVE.port) as listener,
        published(lab, NAME, IP, [DEAD, ALIVE]) as frontend,
    ):
        for _ in range(2):
            with connect(lab, "client", frontend) as client:
                client.sendall(b"early bird")
                client.shutdown(socket.SHUT_WR)
                with accept(listener) as server:
                    assert server.recv(100) == b"early bird"
                    assert server.recv(100) == b""
                    server.sendall(b"caught it")
                assert client.recv(100) == b"caught it"


@pytest.mark.usefixtures("blackhole")
def test_a_backend_that_is_taken_away_while_it_is_dialled(lab: Lab) -> None:
    with listen(lab, "server2", ALIVE.port) as listener, published(lab, NAME, IP, [DEAD]) as frontend:
        client = connect(lab, "client", frontend)
        changer = threading.Thread(target=publish, args=(lab, NAME, IP, [ALIVE]))
        changer.start()
        with client, accept(listener) as server:
            assert echoes(client, server)
        changer.join()
