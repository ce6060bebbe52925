"""What a steering process has learned of clients and pods, its successor knows."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from integration.echo import echo_server
from integration.services import published, withdraw
from integration.sockets import PATIENCE_SECONDS, connect
from integration.steered.processes import steering_pids, wait_for_another
from userproxy.lab import objects
from userproxy.lab.objects import Port
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

PODS = {"server1": Address(SERVER1.ip, 7300), "server2": Address(SERVER2.ip, 7300)}
DEAD = Address(SERVER1.ip, 7301)
MEMBERS, OTHER = ("client", "host1"), "server1"
TOLD_SECONDS = 0.3


@pytest.fixture(autouse=True)
def pods(lab: Lab) -> Iterator[None]:
    """Both serve."""
    with contextlib.ExitStack() as stack:
        for name, pod in PODS.items():
            stack.enter_context(echo_server(lab.namespace(name), (pod.ip, pod.port), name))
        yield


@pytest.fixture
def sticky(lab: Lab) -> Iterator[Address]:
    """A Service whose clients keep their pods."""
    frontend = Address("10.3.241.40", 80)
    service = objects.service("sticky", [frontend.ip], [Port(80)], sessionAffinity="ClientIP")
    ports, endpoints = [Port(80, 7300)], [objects.endpoint(pod.ip) for pod in PODS.values()]
    slices = objects.endpoint_slice("sticky-1", "sticky", ports, endpoints)
    lab.write_manifest("sticky.yaml", objects.manifest([service, slices]))
    wait_until(
        "it is served", lambda: "default/sticky" in str(lab.rows("host1", "services")), PATIENCE_SECONDS
    )
    yield frontend
    withdraw(lab, "sticky")


def replace(lab: Lab, how: signal.Signals, frontend: Address) -> str:
    """Have another process choose: by SIGHUP to the daemon, or since the one that does is killed.

    Returns:
        Who answers another client meanwhile.
    """
    pids = steering_pids(lab)
    for pid in [lab.daemon("host1").pid] if how is signal.SIGHUP else pids:
        os.kill(pid, how)
    answer = pod_of(lab, OTHER, frontend)
    wait_for_another(lab, pids)
    wait_until("it answers", lambda: len(steering_pids(lab)) == 1, PATIENCE_SECONDS)
    lab.rows("host1", "services")
    return answer


def pod_of(lab: Lab, member: str, frontend: Address) -> str:
    """Who answers; the connection is over then."""
    with connect(lab, member, frontend) as client:
        return client.recv(100).decode().partition(" ")[0]


def ejected(lab: Lab) -> list[str]:
    """The pods that are."""
    return [row["backend"] for row in lab.rows("host1", "backends") if row["state"] == "ejected"]


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGKILL])
def test_clients_come_back_to_their_pods_and_who_is_ejected_stays_so(
    lab: Lab, sticky: Address, how: signal.Signals
) -> None:
    with published(lab, "half", "10.3.241.41", [DEAD, PODS["server2"]]) as half:

        def tried() -> bool:
            pod_of(lab, "client", half)
            return bool(ejected(lab))

        before = {member: pod_of(lab, member, sticky) for member in MEMBERS}
        assert set(before.values()) == {*PODS}, "each its turn"
        wait_until("it is ejected", tried, 2 * PATIENCE_SECONDS)
        time.sleep(TOLD_SECONDS)
        meanwhile = replace(lab, how, sticky)
        # In the other order, in which new ones would have each other's pods.
        assert {member: pod_of(lab, member, sticky) for member in reversed(MEMBERS)} == before
        assert pod_of(lab, OTHER, sticky) == meanwhile
        wait_until("the next one knows it", lambda: ejected(lab) == [str(DEAD)], PATIENCE_SECONDS)
