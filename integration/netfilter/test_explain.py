"""`userproxy explain` says of a packet what the kernel then does with it."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from integration.services import published
from integration.vitals import family
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import CLIENT, SERVER1, SERVER2, SERVER_SERVICE
from userproxy.model.address import Address
from userproxy.model.steering import FIRST_QUEUE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

FRONTEND = str(SERVER_SERVICE.frontend)
PODS = [f"{SERVER1.ip}:8080", f"{SERVER2.ip}:8080"]


def explain(lab: Lab, *argv: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(lab.userproxy("host1", "explain", "-o", "json", *argv))


def test_a_relayed_connection_is_told_and_then_seen(lab: Lab) -> None:
    told = explain(lab, "--send", FRONTEND)
    packet = told["packet"]
    assert packet["outcome"] == "relayed"
    assert sorted(packet["pods"]) == PODS
    assert packet["alive"] == [0]
    assert [row["service"] for row in told["services"]] == [f"{SERVER_SERVICE.port_names[0]}"]
    assert sorted(row["backend"] for row in told["backends"]) == PODS
    assert told["sent"]["answer"] == "connected"
    assert told["sent"]["led_to"] == packet["listener"] == told["services"][0]["listener"]
    assert told["connection"]["client"] == told["sent"]["source"]
    assert any("@listeners4" in taken["rule"] for taken in packet["rules"])


@pytest.mark.parametrize(("path", "queue"), [("redirect-to-pod", 0), ("steered", FIRST_QUEUE)])
def test_the_paths_to_pods(lab: Lab, path: str, queue: int) -> None:
    with published(lab, "straight", "10.3.241.70", [Address(SERVER2.ip, 8080)], path=path) as frontend:
        told = explain(lab, "--send", str(frontend))
        assert (told["packet"]["outcome"], told["packet"]["queue"]) == ("sent to a pod", queue)
        assert told["packet"]["differences"] == []
        assert told["packet"]["pods"] == [told["sent"]["led_to"]] == [f"{SERVER2.ip}:8080"]
        assert told["sent"]["answer"] == "connected"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([f"{SERVER_SERVICE.ip}:81"], "the Service has no such port"),
        (["--from", CLIENT.ip, f"{SERVER_SERVICE.ip}:81"], "the Service has no such port"),
        (["--from", "192.0.2.7", FRONTEND], "it is from outside, and cluster IPs are for pods and nodes"),
        (["10.100.0.2:10400"], "it is a listener of ours"),
    ],
)
def test_whoever_is_refused_is_told_why(lab: Lab, argv: list[str], why: str) -> None:
    packet = explain(lab, *argv)["packet"]
    assert packet["outcome"] == "refused"
    assert packet["why"].startswith(why)


def test_a_service_without_endpoints(lab: Lab) -> None:
    with published(lab, "empty", "10.3.241.71", []) as frontend:
        told = explain(lab, "--send", str(frontend))
        assert told["packet"]["why"] == "the Service has no endpoints that may be used"
        assert told["sent"]["answer"] == "connection refused"


def test_what_is_nobody_s_service_is_not_captured(lab: Lab) -> None:
    told = explain(lab, PODS[0])
    assert told["packet"]["outcome"] == "not captured"
    assert told["services"] == []


def test_whose_rules_are_asked_too(lab: Lab) -> None:
    table = "table ip theirs { chain c { type filter hook prerouting priority -150; }; }"
    lab.exec("host1", "nft", "-f", "-", stdin=table)
    try:
        others = explain(lab, "--from", CLIENT.ip, FRONTEND)["packet"]["others"]
    finally:
        lab.exec("host1", "nft", "delete", "table", "ip", "theirs")
    assert others == ["ip theirs c, prerouting -150"]


def test_while_no_worker_accepts_it_goes_to_the_pods(lab: Lab) -> None:
    """As the text has it, without a daemon that could say anything."""
    processes = family(lab.daemon("host1").pid)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        lab.exec("host1", "sleep", "2.5")
        told = lab.userproxy("host1", "explain", "--from", CLIENT.ip, "--admin-socket", "/nowhere", FRONTEND)
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        # The lab is everybody's: who comes next is to find it as it was.
        wait_until(
            "workers accept again", lambda: explain(lab, FRONTEND)["packet"]["outcome"] == "relayed", 10.0
        )
    assert f"sent by the kernel to one of {', '.join(PODS)}, evenly, as no worker accepts" in told
    assert "the pod sees this node as its client" in told
    assert "/nowhere" in told
