"""A pod that fails its checks gets no new connections, though netfilter sends them without asking anybody."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from integration.redirect_to_pod.servers import ask, hold, lives, serving
from integration.redirect_to_pod.services import put, service, tcp
from userproxy.lab.processes import wait_until
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

IP = "10.3.242.7"
TCP = tcp(80, 7000)
FRONTEND = Address(IP, 80)
PODS = ("server1", "server2")
CHECKED = {"health-check": "tcp", "health-check-interval": "200ms"}
PATIENCE_SECONDS = 5.0


def answers(lab: Lab, count: int = 20) -> set[str]:
    """Who answers so many new connections."""
    return {ask(lab, "client", FRONTEND)[0] for _ in range(count)}


def fails(lab: Lab) -> bool:
    """Whether a new connection meets the pod that is not there."""
    try:
        ask(lab, "client", FRONTEND)
    except ConnectionRefusedError:
        return True
    return False


def states(lab: Lab) -> dict[str, tuple[str, str]]:
    rows = [row for row in lab.rows("host1", "backends") if row["service"] == "default/checked:tcp-80"]
    return {row["backend"]: (row["state"], row["reason"]) for row in rows}


def test_a_dead_pod_gets_no_new_connections_until_it_lives_again(lab: Lab) -> None:
    with ExitStack() as stack:
        server1 = stack.enter_context(ExitStack())
        server1.enter_context(serving(lab, ["server1"], 7000))
        stack.enter_context(serving(lab, ["server2"], 7000))
        stack.enter_context(service(lab, "checked", IP, [TCP], PODS, annotations=CHECKED))
        assert answers(lab) == {"server1:7000", "server2:7000"}
        kept = [hold(lab, "client", FRONTEND)[0] for _ in range(10)]

        server1.close()
        dead = ("down", "health check: connection refused")
        wait_until("it is out", lambda: states(lab)["10.0.1.2:7000"] == dead, PATIENCE_SECONDS)
        assert states(lab)["10.0.2.2:7000"] == ("up", "")
        assert answers(lab) == {"server2:7000"}
        assert all(lives(connection) for connection in kept), "connections go on, wherever they lead"

        put(lab, "checked", IP, [TCP], PODS, terminating=["server1"], annotations=CHECKED)
        assert states(lab)["10.0.1.2:7000"] == ("draining", "terminating"), "news that change no rule show"
        put(lab, "checked", IP, [TCP], PODS, annotations=CHECKED)
        wait_until("it is out again", lambda: states(lab)["10.0.1.2:7000"] == dead, PATIENCE_SECONDS)

        lab.daemon("host1").kill()
        assert answers(lab) == {"server2:7000"}, "the rules stay while the daemon is gone"
        lab.start_daemon("host1", "--mode", "redirect-to-pod")
        assert answers(lab) == {"server2:7000"}, "and the next daemon does not begin by believing it is well"

        stack.enter_context(serving(lab, ["server1"], 7000))
        wait_until("it is back", lambda: states(lab)["10.0.1.2:7000"] == ("up", ""), PATIENCE_SECONDS)
        assert answers(lab) == {"server1:7000", "server2:7000"}
        for connection in kept:
            connection.close()


def test_by_default_a_service_in_use_is_checked(lab: Lab) -> None:
    with serving(lab, ["server2"], 7000), service(lab, "checked", IP, [TCP], PODS):
        tried, failed = 0, 0
        began = time.monotonic()
        while states(lab)["10.0.1.2:7000"][0] != "down":
            assert time.monotonic() - began < 20.0
            tried, failed = tried + 1, failed + fails(lab)
            time.sleep(0.2)
        took = time.monotonic() - began
        print(f"{failed} of {tried} connections failed within the {took:.1f} s until it was out")
        assert answers(lab) == {"server2:7000"}


def test_without_checks_netfilter_goes_on_sending(lab: Lab) -> None:
    unchecked = {"health-check": "off"}
    with serving(lab, ["server2"], 7000), service(lab, "checked", IP, [TCP], PODS, annotations=unchecked):
        assert 0 < sum(fails(lab) for _ in range(20)) < 20
