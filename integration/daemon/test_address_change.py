"""A node that is renumbered while the daemon runs is followed; an address that was set is waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.daemon.traces import assert_same, kernel_state
from integration.services import host_port, problems, publish
from integration.sockets import connect, echoes, listen, pair
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import HOST1, REFERENCE, SERVER1, SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

OLD, NEW = HOST1.ip, "10.100.0.5"
FOLLOWING = ("--host-ip", "", "--drain-seconds", "1")
SERVICE, NAME = SERVER_SERVICE.frontend, SERVER_SERVICE.name
LONG = "10.3.241.70"
OTHERS_ROUTE = f"198.51.100.0/24 via {REFERENCE.gateway_ip} table 77"
PATIENCE_SECONDS = 15.0
PAUSE_SECONDS = 0.05


def take_away(lab: Lab, ip: str) -> None:
    """An address of host1's uplink; its default route goes with it."""
    lab.exec("host1", "ip", "address", "delete", f"{ip}/24", "dev", "eth0")


def give(lab: Lab, ip: str) -> None:
    """The address for the uplink of host1, with its routes, and the way to its pods."""
    lab.exec("host1", "ip", "address", "add", f"{ip}/24", "dev", "eth0")
    lab.exec("host1", "ip", "route", "replace", "default", "via", REFERENCE.gateway_ip)
    lab.exec("host1", "ip", "route", "replace", *OTHERS_ROUTE.split())
    lab.exec("gateway", "ip", "route", "replace", HOST1.pod_network, "via", ip)


@pytest.fixture(autouse=True)
def _as_before(lab: Lab) -> Iterator[None]:
    """In the end host1 has its own address, and no other."""
    yield
    has = lab.exec("host1", "ip", "-o", "-4", "address", "show", "dev", "eth0").stdout
    if f"{OLD}/" not in has:
        if f"{NEW}/" in has:
            take_away(lab, NEW)
        give(lab, OLD)


class Outcome(NamedTuple):
    """How one connection attempt went: when it began, when it was over, and whether the Service answered."""

    began: float
    over: float
    answered: bool


@contextlib.contextmanager
def asking(lab: Lab) -> Iterator[list[Outcome]]:
    """The client asks the Service, again and again, for the time of the block."""
    outcomes: list[Outcome] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(PAUSE_SECONDS):
            began = time.monotonic()
            try:
                with connect(lab, "client", SERVICE, timeout=1.0) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answered = connection.recv(100).startswith(b"HTTP/1")
            except OSError:
                answered = False
            outcomes.append(Outcome(began, time.monotonic(), answered))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield outcomes
    finally:
        over.set()
        asker.join()


def answers(lab: Lab, member: str = "client") -> bool:
    """Whether both pods answer."""
    command = ("curl", "-sS", "--max-time", "2", f"http://{SERVICE}")
    return all(lab.exec(member, *command, check=False).returncode == 0 for _ in range(2))


def listener_ips(lab: Lab) -> set[str]:
    rows = lab.rows("host1", "services")
    return {row["listener"].partition(":")[0] for row in rows if row["listener"]}


def sources_of_routes(lab: Lab) -> set[str]:
    """From where the host's own connections to Service IPs come, where nothing else says so."""
    lines = lab.exec("host1", "ip", "route", "show", "table", "10110").stdout.splitlines()
    return {words[words.index("src") + 1] if "src" in words else "" for words in map(str.split, lines)}


def is_told(lab: Lab, ip: str) -> bool:
    return any(f"{ip} is no longer an address of this node" in line for line in problems(lab))


def test_a_renumbered_node_is_followed(lab: Lab) -> None:
    before = kernel_state(lab)
    lab.start_daemon("host1", *FOLLOWING, "--on-stop", "remove")
    ports = {name: host_port(lab, name) for name in (NAME,)}
    with listen(lab, "server1", 7000) as pod:
        frontend = publish(lab, "long", LONG, [Address(SERVER1.ip, 7000)])
        ports["long"] = host_port(lab, "long")
        client, server = pair(lab, frontend, pod)
        with client, server, asking(lab) as outcomes:
            assert echoes(client, server)
            take_away(lab, OLD)
            wait_until("it is told", lambda: is_told(lab, OLD), PATIENCE_SECONDS)
            assert listener_ips(lab) == {OLD}, "what there is stays, until there is another address"
            gone = time.monotonic()
            give(lab, NEW)
            wait_until("it is over", lambda: not problems(lab), PATIENCE_SECONDS)
            wait_until("the Service answers again", lambda: answers(lab), PATIENCE_SECONDS)
            back = time.monotonic()
            assert listener_ips(lab) == {NEW}
            assert {name: host_port(lab, name) for name in ports} == ports
            assert sources_of_routes(lab) == {NEW}
            assert answers(lab, "host1")
            client.sendall(b"anybody there?")
            with pytest.raises(ConnectionResetError):
                client.recv(1)  # it is not left to wait
            again, other_end = pair(lab, frontend, pod)
            with again, other_end:
                assert echoes(again, other_end)
            wait_until("a few more", lambda: outcomes[-1].began > back + 1, PATIENCE_SECONDS)
            later = [each for each in outcomes if each.began > back]
            assert all(each.answered for each in later), later
            first = min(each.over for each in outcomes if each.answered and each.began > gone)
            print(f"answered again {first - gone:.2f} s after the new address was there")

            take_away(lab, NEW)
            give(lab, OLD)
            wait_until("it is back", lambda: listener_ips(lab) == {OLD}, PATIENCE_SECONDS)
    wait_until("the Service answers", lambda: answers(lab), PATIENCE_SECONDS)
    assert OLD in lab.exec("host1", "nft", "list", "table", "inet", "userproxy").stdout
    assert NEW not in lab.exec("host1", "nft", "list", "table", "inet", "userproxy").stdout
    lab.daemon("host1").stop()
    assert_same(kernel_state(lab), before)


def test_an_address_that_goes_and_comes_back_is_waited_for(lab: Lab) -> None:
    """It was set by the operator: the listeners stay where they are, and work again."""
    lab.start_daemon("host1")
    with listen(lab, "server1", 7000) as pod:
        frontend = publish(lab, "long", LONG, [Address(SERVER1.ip, 7000)])
        client, server = pair(lab, frontend, pod)
        with client, server:
            take_away(lab, OLD)
            wait_until("it is told", lambda: is_told(lab, OLD), PATIENCE_SECONDS)
            assert "--host-ip" in problems(lab)[0]
            assert not answers(lab)
            give(lab, NEW)
            publish(lab, "meanwhile", "10.3.241.71", [Address(SERVER1.ip, 8080)])
            assert listener_ips(lab) == {OLD}
            assert is_told(lab, OLD)
            take_away(lab, NEW)
            give(lab, OLD)
            wait_until("it is over", lambda: not problems(lab), PATIENCE_SECONDS)
            assert answers(lab)
            assert echoes(client, server)
            assert sources_of_routes(lab) == {OLD}
            connect(lab, "client", Address("10.3.241.71", 80)).close()


def test_a_daemon_that_starts_on_a_renumbered_node_moves_what_it_finds(lab: Lab) -> None:
    lab.start_daemon("host1", *FOLLOWING)
    port = host_port(lab, NAME)
    daemon = lab.daemon("host1")
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait(5.0)
    assert answers(lab), "its workers go on"
    take_away(lab, OLD)
    give(lab, NEW)
    lab.start_daemon("host1", *FOLLOWING)
    wait_until("it is served there", lambda: listener_ips(lab) == {NEW} and answers(lab), PATIENCE_SECONDS)
    assert host_port(lab, NAME) == port
    assert OLD not in lab.exec("host1", "nft", "list", "table", "inet", "userproxy").stdout
    assert sources_of_routes(lab) == {NEW}
    assert not problems(lab)
