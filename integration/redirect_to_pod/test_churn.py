"""Endpoints come and go while clients ask: whoever asks is answered, by a pod that is there."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from integration.redirect_to_pod.servers import ask, ask_udp, asking, hold, lives, serving, udp_client
from integration.redirect_to_pod.services import put, service, tcp, udp
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

NAME, IP = "churning", "10.3.242.6"
PORTS = [tcp(80, 7000), udp(80, 7000)]
FRONTEND = Address(IP, 80)
CLIENTS = ("client", "host1", "server1")
SECONDS = 8.0


def by_tcp(lab: Lab, member: str) -> str:
    return ask(lab, member, FRONTEND)[0]


def by_udp(lab: Lab, member: str) -> str:
    with udp_client(lab, member, FRONTEND) as client:
        return ask_udp(client)[0]


def test_no_request_fails_while_endpoints_come_and_go(lab: Lab) -> None:
    chosen = random.Random(5)  # noqa: S311 - the same churn in each run
    with serving(lab, ["server1", "server2"], 7000), service(lab, NAME, IP, PORTS, ["server1"]):
        steady = [hold(lab, member, FRONTEND)[0] for member in CLIENTS]
        changes = 0
        with asking(lab, CLIENTS, {"TCP": by_tcp, "UDP": by_udp}) as asked:
            began = time.monotonic()
            while time.monotonic() - began < SECONDS:
                # server1 or server2 or both; the pods stay, so that any refusal is of our making.
                pods = chosen.choice([["server1"], ["server2"], ["server1", "server2"]])
                put(lab, NAME, IP, PORTS, pods)
                changes += 1
        assert all(map(lives, steady)), "whoever was connected before it all still is"
        for each in steady:
            each.close()
    answered, failures = asked.answered, asked.failures
    print(f"{changes} changes, {answered.total()} requests, {len(failures)} failed: {dict(answered)}")
    lost = [failure for failure in failures if failure.startswith("UDP") and "TimeoutError" in failure]
    assert lost == failures, failures[:5]
    # The answer that is under way when its pod is taken out, and its flow forgotten, finds no translation.
    assert len(lost) <= changes / 10, lost[:5]
    assert len(answered) == 4
