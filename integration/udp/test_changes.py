"""A client with one source port, while its Service changes: who loses its pod loses one datagram at most."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from integration.services import host_port
from integration.sockets import PATIENCE_SECONDS
from integration.udp.servers import serving
from integration.udp.services import CLUSTER_IP, NODE_PORT, OTHER_IP, publish, published, republish
from integration.udp.steady import Steady
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.lab.deployment import Lab

PODS = ("server1", "server2")
CHANGES = 50

ANEW = "made anew"
"""Of this change alone counts what comes once the Service is there again."""


def test_fifty_changes_of_a_service(lab: Lab) -> None:
    with serving(lab, PODS), published(lab, "echo", PODS):
        port = host_port(lab, "echo")
        steady = Steady(lab, "client", CLUSTER_IP)
        lost: dict[str, list[int]] = {}
        with steady.going_on():
            for number in range(CHANGES):
                begun = steady.sent
                name = _change(lab, number, steady.pod)
                begun = steady.sent + 1 if name == ANEW else begun
                steady.some(4)
                settled = max(steady.answers)
                lost.setdefault(name, []).append(sum(begun <= one < settled for one in steady.lost))
        assert host_port(lab, "echo") == port
    print(f"{steady.sent} datagrams through {CHANGES} changes, lost {len(steady.lost)}: {lost}")
    for name, counts in lost.items():
        assert max(counts) <= (name == "its pod gone"), name
    assert len({peer for _, peer in steady.answers.values()}) > 1, "it has had several pods"


def _change(lab: Lab, number: int, pod: str) -> str:
    """One of several changes while a pod serves the client; returns what it was."""
    other = "server2" if pod == "server1" else "server1"
    changes: dict[str, Callable[[], None]] = {
        "an address less": lambda: publish(lab, "echo", PODS, externalIPs=[]),
        "an address more": lambda: publish(lab, "echo", PODS, externalIPs=[OTHER_IP.ip]),
        "another pod gone": lambda: publish(lab, "echo", [pod]),
        "another pod back": lambda: publish(lab, "echo", PODS),
        "its pod gone": lambda: publish(lab, "echo", [other]),
        "its former pod back": lambda: publish(lab, "echo", PODS),
        "another policy": lambda: publish(lab, "echo", PODS, externalTrafficPolicy="Local"),
        "its policy as before": lambda: publish(lab, "echo", PODS),
        ANEW: lambda: republish(lab, "echo", PODS),
        "an annotation": lambda: publish(lab, "echo", PODS, {"balance": "random-two"}),
    }
    name = list(changes)[number % len(changes)]
    changes[name]()
    return name


def test_a_client_from_before_the_service_is_served_as_soon_as_it_is_there(lab: Lab) -> None:
    early = [Steady(lab, "client", address) for address in (CLUSTER_IP, NODE_PORT, OTHER_IP)]
    with serving(lab, PODS), contextlib.ExitStack() as stack:
        for each in early:
            each.start()
            stack.callback(each.stop)
            wait_until("it has asked in vain", lambda one=each: one.sent > 2, PATIENCE_SECONDS)  # type: ignore[misc]
        with published(lab, "echo", PODS, externalIPs=[OTHER_IP.ip]):
            for each in early:
                each.some()
