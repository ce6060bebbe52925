"""What an operator does: kill connections, drain a pod and watch it until it is idle, bring it back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from integration.health.scenes import ask_often, backend_rows, drained, states
from integration.services import live_connections, publish, published, withdraw
from integration.sockets import connect, echoes, listen, pair
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "by-hand"
IP = "10.3.242.10"
PODS = [SERVER1.address, SERVER2.address]


@pytest.fixture
def service(lab: Lab) -> Iterator[Address]:
    with published(lab, NAME, IP, PODS, health_check="auto") as frontend:
        yield frontend


def served_by(lab: Lab, frontend: Address, count: int = 8) -> set[str]:
    """The pods that answer so many requests."""
    found = set()
    for _ in range(count):
        asked = lab.exec("client", "curl", "-sS", "--max-time", "5", f"http://{frontend}/")
        found.add(asked.stdout.split()[0])
    return found


def test_a_drained_pod_gets_no_new_connections_keeps_its_old_ones_and_comes_back(
    lab: Lab, service: Address
) -> None:
    with (
        listen(lab, "server2", 7100) as listener,
        published(lab, "held", "10.3.242.11", [Address(SERVER2.ip, 7100)]) as held,
    ):
        old, its_server = pair(lab, held, listener)
        with old, its_server:
            with drained(lab, SERVER2.ip) as said:
                print(*said)
                assert "3 backends" in said[0]  # of this Service, of `held` and of the lab's own
                assert "1 connection may go on" in said[0]
                assert served_by(lab, service) == {"server1"}
                assert states(lab, NAME)[str(SERVER2.address)] == "draining"
                publish(lab, NAME, IP, [*PODS, Address(SERVER1.ip, 8099)], health_check="auto")
                publish(lab, NAME, IP, PODS, health_check="auto")
                assert served_by(lab, service) == {"server1"}
                assert echoes(old, its_server)
            assert served_by(lab, service) == {"server1", "server2"}


def test_connections_are_killed_by_id_and_by_what_they_have(lab: Lab) -> None:
    with (
        listen(lab, "server1", 7101) as first,
        listen(lab, "server2", 7101) as second,
        published(lab, "kill-one", "10.3.242.12", [Address(SERVER1.ip, 7101)]) as one,
        published(lab, "kill-two", "10.3.242.13", [Address(SERVER2.ip, 7101)]) as two,
    ):
        pairs = [pair(lab, one, first) for _ in range(3)] + [pair(lab, two, second) for _ in range(2)]
        victim = lab.rows("host1", "connections", "--service", "default/kill-one")[0]
        assert lab.userproxy("host1", "kill", victim["id"]) == "killed 1 connection\n"
        wait_until("it is gone", lambda: live_connections(lab, "kill-one") == 2, 5.0)
        again = lab.exec("host1", "userproxy", "kill", victim["id"], check=False)
        assert (again.returncode, again.stdout) == (1, "killed 0 connections\n")
        of_one = lab.userproxy("host1", "kill", "--service", "default/kill-one")
        assert of_one == "killed 2 connections of default/kill-one\n"
        assert echoes(*pairs[3])
        at_second = lab.userproxy("host1", "kill", "--backend", SERVER2.ip)
        assert at_second == f"killed 2 connections to {SERVER2.ip}\n"
        for client, its_server in pairs:
            for end in (client, its_server):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
                end.close()
        nothing = lab.exec("host1", "userproxy", "kill", check=False)
        assert nothing.returncode == 2


def test_with_every_pod_drained_clients_are_refused_at_once(lab: Lab, service: Address) -> None:
    with (
        drained(lab, str(SERVER1.address), str(SERVER2.address)),
        pytest.raises(ConnectionRefusedError),
    ):
        connect(lab, "client", service)
    assert ask_often(lab, service, 4)[1] == 0


@contextlib.contextmanager
def held(lab: Lab, name: str, ip: str, port: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """A Service with one pod, and three connections that go on."""
    with (
        listen(lab, "server2", port) as listener,
        published(lab, name, ip, [Address(SERVER2.ip, port)]) as to,
    ):
        pairs = [pair(lab, to, listener) for _ in range(3)]
        try:
            yield pairs
        finally:
            for end in (end for ends in pairs for end in ends):
                end.close()


def seen(lab: Lab, name: str) -> list[tuple[str, int]]:
    """The state of each backend of a Service, and its connections."""
    return [(row.state, row.connections) for row in backend_rows(lab, name)]


def connections_in_services(lab: Lab, name: str) -> int | None:
    """What `userproxy services` tells; None where the Service is not among them."""
    found = {row["service"]: row["connections"] for row in lab.rows("host1", "services")}
    return found.get(f"default/{name}")


def end_one_after_another(
    lab: Lab, name: str, pairs: list[tuple[socket.socket, socket.socket]], state: str
) -> None:
    """Each connection is shown as long as it lives."""
    for left in range(len(pairs), 0, -1):
        assert seen(lab, name) == [(state, left)]
        assert connections_in_services(lab, name) == left
        assert echoes(*pairs[-1])
        for end in pairs.pop():
            end.close()
        wait_until("it is over", lambda left=left: live_connections(lab, name) < left, 5.0)  # type: ignore[misc]


def test_a_drain_is_watched_until_the_last_connection_is_over(lab: Lab) -> None:
    with held(lab, "watched", "10.3.242.14", 7110) as pairs, drained(lab, f"{SERVER2.ip}:7110") as said:
        assert "3 connections may go on" in said[0]
        end_one_after_another(lab, "watched", pairs, "draining")
        assert seen(lab, "watched") == [("draining", 0)]
        assert connections_in_services(lab, "watched") == 0


def test_a_removed_pod_is_watched_until_its_last_connection_is_over(lab: Lab) -> None:
    with held(lab, "removed-pod", "10.3.242.15", 7111) as pairs:
        publish(lab, "removed-pod", "10.3.242.15", [])
        end_one_after_another(lab, "removed-pod", pairs, "removed")
        assert seen(lab, "removed-pod") == []
        assert connections_in_services(lab, "removed-pod") == 0


def test_a_deleted_service_is_watched_until_its_last_connection_is_over(lab: Lab) -> None:
    with held(lab, "deleted", "10.3.242.16", 7112) as pairs:
        withdraw(lab, "deleted")
        (row,) = [row for row in lab.rows("host1", "services") if row["service"] == "default/deleted"]
        assert row["problems"] == ["the Service is deleted; its live connections go on"]
        end_one_after_another(lab, "deleted", pairs, "removed")
        assert (seen(lab, "deleted"), connections_in_services(lab, "deleted")) == ([], None)


def test_a_removed_pod_that_comes_back_is_up_with_the_connections_that_it_had(lab: Lab) -> None:
    with held(lab, "comes-back", "10.3.242.17", 7113) as pairs:
        publish(lab, "comes-back", "10.3.242.17", [])
        assert seen(lab, "comes-back") == [("removed", 3)]
        publish(lab, "comes-back", "10.3.242.17", [Address(SERVER2.ip, 7113)])
        assert seen(lab, "comes-back") == [("up", 3)]
        assert all(echoes(*ends) for ends in pairs)
