"""A pod that refuses, or says nothing, costs a steered client a second; never the connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from integration.echo import echo_server
from integration.services import published
from integration.sockets import connect
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

IP = "10.3.241.30"
ALIVE, DEAD = Address(SERVER2.ip, 7102), tuple(Address(SERVER1.ip, 7101 + number) for number in range(5))
CLIENTS = 40
ROUNDS, EACH = 6, 100
PATIENCE_SECONDS = 8.0
SILENT = """
table inet silent {{
    chain input {{
        type filter hook input priority 0;
        tcp dport 7101 {}
    }}
}}
"""


@pytest.fixture(params=["drop", "reject with icmpx host-unreachable"])
def silent(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    """server1 does not answer on the first port: neither SYN-ACK nor RST."""
    lab.exec("server1", "nft", "-f", "-", stdin=SILENT.format(request.param))
    yield
    lab.exec("server1", "nft", "delete", "table", "inet", "silent")


@pytest.fixture(autouse=True)
def alive(lab: Lab) -> Iterator[None]:
    """The one pod that serves."""
    with echo_server(lab.namespace("server2"), (ALIVE.ip, ALIVE.port), "alive"):
        yield


def timed(lab: Lab, member: str, frontend: Address, count: int = CLIENTS) -> list[float]:
    """So many clients in turn, all of whom are served: the seconds that connecting took each, sorted."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        with connect(lab, member, frontend) as client:
            took.append(time.monotonic() - began)
            assert client.recv(100).startswith(b"alive ")
    return sorted(took)


def told(what: str, lab: Lab, member: str, frontend: Address, first: list[float]) -> None:
    """Print what connecting takes once the pods have been ejected, and with healthy ones."""
    later, usual = list[float](), list[float]()
    with published(lab, "healthy", "10.3.241.31", [ALIVE]) as healthy:
        for _ in range(ROUNDS):
            later += timed(lab, member, frontend, EACH)
            usual += timed(lab, member, healthy, EACH)
    slow = sum(seconds > 0.5 for seconds in first)
    print(
        f"{what}: {slow} of {len(first)} clients waited, at most {first[-1]:.2f} s; after ejection",
        f"99 % of {len(later)} took at most {p99(later) * 1000:.2f} ms,",
        f"{p99(later) / p99(usual):.2f} times that with healthy ones",
    )


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]


@pytest.mark.parametrize("member", ["client", "host1"])
def test_five_of_six_refuse_and_every_client_is_served(lab: Lab, member: str) -> None:
    with published(lab, "refusing", IP, [*DEAD, ALIVE]) as frontend:
        first = timed(lab, member, frontend)
        told(f"five of six refuse, asked from {member}", lab, member, frontend, first)


@pytest.mark.usefixtures("silent")
def test_one_of_two_is_silent_and_every_client_is_served(lab: Lab) -> None:
    with published(lab, "silent", IP, [DEAD[0], ALIVE]) as frontend:
        first = timed(lab, "client", frontend)
        told("one of two is silent", lab, "client", frontend, first)


def test_all_refuse_and_the_client_is_refused_when_it_asks_again(lab: Lab) -> None:
    with published(lab, "refusing", IP, DEAD[:1]) as frontend:
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            connect(lab, "client", frontend)
        assert time.monotonic() - began < PATIENCE_SECONDS / 2
