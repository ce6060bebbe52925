"""The reference deployment, as the README tells it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from integration.sockets import seconds_until_refused
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2, SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

URL = f"http://{SERVER_SERVICE.frontend}"
LISTENER = Address("10.100.0.2", 10400)


@pytest.fixture
def without_default_route(lab: Lab) -> Iterator[None]:
    lab.exec("host1", "ip", "route", "del", "default")
    # host2's pod must stay in reach: it is no part of what is tried.
    lab.exec("host1", "ip", "route", "add", "10.0.2.0/24", "via", "10.100.0.1")
    yield
    lab.exec("host1", "ip", "route", "del", "10.0.2.0/24")
    lab.exec("host1", "ip", "route", "add", "default", "via", "10.100.0.1")


def ask(lab: Lab, member: str) -> str:
    """Which server answers."""
    return lab.exec(member, "curl", "-sS", "--max-time", "5", URL).stdout.split()[0]


def in_turn(lab: Lab, member: str) -> None:
    answers = [ask(lab, member) for _ in range(6)]
    assert answers[:2] == answers[2:4] == answers[4:]
    assert set(answers) == {SERVER1.name, SERVER2.name}


def test_a_pod_gets_the_servers_in_turn(lab: Lab) -> None:
    in_turn(lab, "client")


def test_the_host_itself_gets_the_servers_in_turn(lab: Lab) -> None:
    in_turn(lab, "host1")


@pytest.mark.usefixtures("without_default_route")
def test_a_host_without_a_default_route_reaches_the_service_too(lab: Lab) -> None:
    in_turn(lab, "host1")


def test_a_pod_reaches_itself_through_the_service(lab: Lab) -> None:
    in_turn(lab, "server1")


def test_connections_tells_what_the_kernel_tells(lab: Lab) -> None:
    lab.start("holder", "client", "curl", "-sSN", f"{URL}/hold/20")
    try:
        (row,) = wait_for_one_connection(lab)
        listed = lab.exec("client", "ss", "-Htn", "dst", "10.3.241.152").stdout.split()
        assert row["client"] == listed[3]
        assert (row["frontend"], row["listener"]) == ("10.3.241.152:80", str(LISTENER))
        (backend_leg,) = lab.exec(
            "host1", "ss", "-Htn", "dst", row["backend"].split(":")[0]
        ).stdout.splitlines()
        assert row["source"] == backend_leg.split()[3]
        assert row["state"] == "established"
    finally:
        lab.processes["holder"].stop()


def wait_for_one_connection(lab: Lab) -> list[dict[str, str]]:
    # Those of earlier scenarios may be listed for a moment more.
    wait_until("the client alone is connected", lambda: len(lab.rows("host1", "connections")) == 1, 5.0)
    return lab.rows("host1", "connections")


@pytest.mark.parametrize("member", ["client", "host1", "server2"])
def test_the_listener_refuses_whoever_was_not_redirected(lab: Lab, member: str) -> None:
    seconds = seconds_until_refused(lab, member, LISTENER)
    print(f"{member} to {LISTENER}: refused after {seconds * 1000:.1f} ms")
    assert seconds < 0.5


def test_a_port_that_the_service_does_not_have_is_not_captured(lab: Lab) -> None:
    asked = lab.exec(
        "client", "curl", "-sS", "--max-time", "3", f"http://{SERVER_SERVICE.frontend.ip}:81/", check=False
    )
    assert asked.returncode != 0
    assert re.search("Could not connect|Couldn't connect|Failed to connect", asked.stderr)
