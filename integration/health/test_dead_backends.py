"""A dead pod costs a client nothing that it can notice: not one connection fails, and soon none is slower."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from integration.health.scenes import ask_often, percentile, server, silent, states, told
from integration.services import published
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

CONNECTIONS = 400
SLOWER = 1.5
SLACK_SECONDS = 0.002
"""What the machine's own moods may add to the 99th percentile of about a millisecond."""


def compare(lab: Lab, healthy: Address, troubled: Address) -> None:
    """Ask both in turn, several times, so that both meet the same moods of the machine; keep the best."""
    for attempt in range(3):
        well, _ = ask_often(lab, healthy, CONNECTIONS)
        ill, failed = ask_often(lab, troubled, CONNECTIONS)
        assert failed == 0
        ratio = percentile(ill, 0.99) / percentile(well, 0.99)
        print(f"after ejection: all healthy {told(well)}; with dead pods {told(ill)}; p99 x{ratio:.2f}")
        if percentile(ill, 0.99) <= SLOWER * percentile(well, 0.99) + (SLACK_SECONDS if attempt else 0):
            return
    raise AssertionError(f"the 99th percentile is {ratio:.2f} times that of an all-healthy Service")


def test_one_of_two_pods_drops_every_packet(lab: Lab) -> None:
    dead = Address(SERVER2.ip, 7200)
    with (
        silent(lab, "server2", 7200),
        published(lab, "one-healthy", "10.3.242.20", [SERVER1.address], health_check="auto") as healthy,
        published(lab, "one-dead", "10.3.242.21", [SERVER1.address, dead], health_check="auto") as troubled,
    ):
        first, failed = ask_often(lab, troubled, 60)
        print(f"before: {len(first)} of {len(first) + failed} succeed, {told(first)}")
        assert failed == 0
        assert sum(seconds > 0.5 for seconds in first) <= 6
        wait_until("it is out", lambda: states(lab, "one-dead")[str(dead)] != "up", 5.0)
        compare(lab, healthy, troubled)


def test_five_of_six_pods_refuse(lab: Lab) -> None:
    with ExitStack() as stack:
        living = [stack.enter_context(server(lab, "server1", 7300 + number)) for number in range(6)]
        dead = [Address(SERVER2.ip, 7310 + number) for number in range(5)]
        healthy, troubled = (
            stack.enter_context(published(lab, name, ip, pods, health_check="auto"))
            for name, ip, pods in (
                ("six-healthy", "10.3.242.22", living),
                ("five-dead", "10.3.242.23", [living[0], *dead]),
            )
        )
        first, failed = ask_often(lab, troubled, 100)
        print(f"before: {len(first)} of {len(first) + failed} succeed, {told(first)}")
        assert failed == 0

        def all_out() -> bool:
            ask_often(lab, troubled, 5)
            return sum(state != "up" for state in states(lab, "five-dead").values()) == 5

        wait_until("all five are out", all_out, 20.0)
        compare(lab, healthy, troubled)
