"""A pod's network is cut, and healed: it is out within the configured time, and back within it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from integration.health.scenes import ask_often, server, states, told
from integration.services import publish, published
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME = "cut"
INTERVAL, TIMEOUT, FALL, RISE = 1.0, 0.5, 3, 2
JITTER = 1.2
OUT_SECONDS = FALL * (INTERVAL * JITTER + TIMEOUT)
BACK_SECONDS = RISE * INTERVAL * JITTER + TIMEOUT
LISTING_SECONDS = 0.5
"""What it takes to ask, and to be scheduled on a busy machine."""


@contextlib.contextmanager
def cut(lab: Lab) -> Iterator[None]:
    """server2's cable is pulled, for the time of the block."""
    lab.exec("host2", "ip", "link", "set", "server2", "down")
    try:
        yield
    finally:
        lab.exec("host2", "ip", "link", "set", "server2", "up")


def seconds_until(lab: Lab, state: str, patience: float) -> float:
    began = time.monotonic()
    wait_until(f"server2 is {state}", lambda: states(lab, NAME)[str(SERVER2.address)] == state, patience)
    return time.monotonic() - began


def test_checks_notice_a_cut_and_its_end(lab: Lab) -> None:
    with published(
        lab,
        NAME,
        "10.3.242.30",
        [SERVER1.address, SERVER2.address],
        health_check="tcp",
        health_check_interval="1s",
        health_check_timeout="500ms",
        health_check_fall=str(FALL),
        health_check_rise=str(RISE),
    ) as frontend:
        time.sleep(2 * INTERVAL)  # so that every worker has begun to check
        with cut(lab):
            out = seconds_until(lab, "down", OUT_SECONDS + LISTING_SECONDS)
            print(f"out after {out:.1f} s; configured: {OUT_SECONDS:.1f} s at most")
            time.sleep(max(0.0, OUT_SECONDS - out))
            took, failed = ask_often(lab, frontend, 50)
            print(f"while it is out: {len(took)} of 50 succeed, {told(took)}")
            assert failed == 0
            assert max(took) < 0.9
        back = seconds_until(lab, "up", BACK_SECONDS + LISTING_SECONDS)
        print(f"back after {back:.1f} s; configured: {BACK_SECONDS:.1f} s at most")


def test_an_http_check_reads_the_status(lab: Lab) -> None:
    ip = "10.3.242.31"
    checks: dict[str, Any] = {"health_check": "http", "health_check_interval": "200ms"}
    with server(lab, "server1", 7400) as address:
        pods = [address, SERVER2.address]
        with published(lab, NAME, ip, pods, health_check_path="/bytes/1", **checks) as frontend:
            wait_until("checks pass", lambda: set(states(lab, NAME).values()) == {"up"}, 5.0)
            publish(lab, NAME, ip, pods, health_check_path="/is-not-there", **checks)
            wait_until("404 takes both out", lambda: set(states(lab, NAME).values()) == {"down"}, 5.0)
            took, failed = ask_often(lab, frontend, 20)
            print(f"with every pod down by its checks: {len(took)} of 20 succeed, {told(took)}")
            assert failed == 0
