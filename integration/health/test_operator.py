"""What a person does by hand: connections are killed, a pod is taken out and brought back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.health.scenes import ask_often, drained, states
from integration.services import live_connections, publish, published
from integration.sockets import connect, echoes, listen, pair
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
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
        assert lab.userproxy("host1", "kill", "--service", "default/kill-one") == "killed 2 connections\n"
        assert echoes(*pairs[3])
        assert lab.userproxy("host1", "kill", "--backend", SERVER2.ip) == "killed 2 connections\n"
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
