"""A UDP client with a fixed port keeps its pod while that is there, and gets another one when it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.redirect_to_pod.servers import ask_udp, serving, udp_client
from integration.redirect_to_pod.services import manifest, put, service, udp
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket

    from userproxy.lab.deployment import Lab

NAME, IP = "names", "10.3.242.5"
UDP = udp(53, 7000)
FRONTEND = Address(IP, 53)
PODS = ("server1", "server2")


def served(clients: list[socket.socket]) -> list[str]:
    return [ask_udp(client)[0] for client in clients]


def test_only_the_clients_of_a_pod_that_goes_are_moved(lab: Lab) -> None:
    with serving(lab, PODS, 7000), service(lab, NAME, IP, [UDP], PODS):
        clients = [udp_client(lab, "client", FRONTEND) for _ in range(40)]
        before = served(clients)
        assert set(before) == {"server1:7000", "server2:7000"}
        assert served(clients) == before, "a flow stays where it is"
        put(lab, NAME, IP, [UDP], [*PODS, "10.0.1.99"])
        assert served(clients) == before, "a pod more moves nobody"
        put(lab, NAME, IP, [UDP], PODS)
        assert served(clients) == before, "a pod less moves those it served"
        put(lab, NAME, IP, [UDP], ["server2"])
        assert set(served(clients)) == {"server2:7000"}, "nobody stays with a pod that went"
        put(lab, NAME, IP, [UDP], PODS)
        assert set(served(clients)) == {"server2:7000"}, "and nobody moves back"
        for client in clients:
            client.close()


def test_a_pod_that_terminates_keeps_its_clients_until_it_is_gone(lab: Lab) -> None:
    with serving(lab, PODS, 7000), service(lab, NAME, IP, [UDP], PODS):
        clients = [udp_client(lab, "client", FRONTEND) for _ in range(40)]
        before = served(clients)
        assert "server1:7000" in before
        put(lab, NAME, IP, [UDP], PODS, terminating=["server1"])
        assert served(clients) == before, "it still serves those whom it serves"
        newcomers = [udp_client(lab, "client", FRONTEND) for _ in range(20)]
        assert set(served(newcomers)) == {"server2:7000"}, "and gets nobody new"
        put(lab, NAME, IP, [UDP], ["server2"])
        assert set(served(clients)) == {"server2:7000"}, "nobody stays with a pod that is gone"
        for client in (*clients, *newcomers):
            client.close()


def test_a_pod_that_goes_while_the_daemon_is_away_keeps_nobody(lab: Lab) -> None:
    with serving(lab, PODS, 7000), service(lab, NAME, IP, [UDP], PODS):
        clients = [udp_client(lab, "client", FRONTEND) for _ in range(40)]
        assert set(served(clients)) == {"server1:7000", "server2:7000"}
        put(lab, NAME, IP, [UDP], PODS, terminating=["server1"])
        lab.daemon("host1").kill()
        lab.write_manifest(f"{NAME}.json", manifest(NAME, IP, [UDP], ["server2"]))
        lab.start_daemon("host1", "--mode", "redirect-to-pod")
        put(lab, NAME, IP, [UDP], ["server2"])
        assert set(served(clients)) == {"server2:7000"}
        for client in clients:
            client.close()


def test_a_client_from_before_the_service_is_served_as_soon_as_it_is_there(lab: Lab) -> None:
    with serving(lab, ["server2"], 7000), udp_client(lab, "client", FRONTEND) as client:
        client.send(b"too early")
        with service(lab, NAME, IP, [UDP], ["server2"]):
            client.send(b"who?")
            while (answer := client.recv(100).decode().split()[0]) != "server2:7000":
                pass
            assert answer == "server2:7000"


def test_a_daemon_that_is_killed_and_comes_back_moves_nobody(lab: Lab) -> None:
    with serving(lab, PODS, 7000), service(lab, NAME, IP, [UDP], PODS):
        clients = [udp_client(lab, "client", FRONTEND) for _ in range(40)]
        before = served(clients)
        lab.daemon("host1").kill()
        assert served(clients) == before, "the rules stay while it is gone"
        lab.start_daemon("host1", "--mode", "redirect-to-pod")
        assert served(clients) == before
        for client in clients:
            client.close()


def test_a_daemon_that_finds_no_rules_moves_nobody_whose_pod_stays(lab: Lab) -> None:
    with serving(lab, PODS, 7000), service(lab, NAME, IP, [UDP], PODS):
        clients = [udp_client(lab, "client", FRONTEND) for _ in range(40)]
        before = served(clients)
        lab.daemon("host1").kill()
        lab.exec("host1", "nft", "delete table inet userproxy")
        lab.start_daemon("host1", "--mode", "redirect-to-pod")
        assert served(clients) == before
        for client in clients:
            client.close()
