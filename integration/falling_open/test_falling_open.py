"""Whatever happens to the processes, a new connection to a healthy pod succeeds."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import pytest

from integration.falling_open.services import (
    LOOPBACK,
    OPEN,
    SHORT,
    SHUT,
    STICKY,
    ask,
    asked_everywhere,
    asking,
    is_relayed,
    processes,
    seconds_until_answered,
    signalled,
    started,
)
from integration.redirect_to_pod.servers import lives
from integration.restart.load import workers
from integration.sockets import connect, udp_from
from userproxy.lab.processes import wait_until
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

TIMEOUT = 2.0
"""Of the heartbeat, and what a machine that has other things to do may add."""
LATE = 1.5
LEAST, MORE_THAN_THE_LIMIT = 100, 220
"""Connections: of 400 files a worker may have, with what is in reserve, about 150."""


@pytest.fixture(autouse=True)
def ended(lab: Lab) -> Iterator[None]:
    """The daemon is ended, and leaves nothing."""
    yield
    signalled(processes(lab), signal.SIGKILL)
    lab.daemon("host1").wait(5.0)
    lab.userproxy("host1", "cleanup")
    assert "userproxy" not in lab.exec("host1", "nft", "list", "tables").stdout


def test_when_all_processes_are_killed_the_pods_answer_and_the_next_daemon_takes_over(lab: Lab) -> None:
    started(lab)
    asked_everywhere(lab)
    signalled(processes(lab), signal.SIGKILL)
    lab.daemon("host1").wait(5.0)
    seconds = seconds_until_answered(lab)
    print(f"all processes killed: pods answer after {seconds:.2f} s")
    assert seconds < TIMEOUT + LATE
    # Until then each frontend's first packet is missed, and a datagram is not sent again.
    wait_until("no heartbeat is believed", lambda: is_silent(lab), TIMEOUT + LATE)
    for _ in range(2):  # by IPv4 and IPv6, from a pod, the node and outside, at every entry
        asked_everywhere(lab)
    for member, address in (("client", SHUT), ("host1", LOOPBACK)):
        with pytest.raises(ConnectionRefusedError):
            ask(lab, member, address)
    assert len({ask(lab, "client", STICKY)[0] for _ in range(12)}) == 1, "a client keeps its pod"
    with asking(lab) as asked:
        started(lab)
        wait_until("it relays", lambda: is_relayed(lab), 10.0)
        ask(lab, "client", SHUT)
    print(f"a start: {asked.answered} answered, slowest {asked.slowest * 1000:.0f} ms, {asked.failures}")
    assert asked.answered > 50
    assert asked.failures == []


def test_a_daemon_that_is_stopped_by_a_debugger_is_passed_by_until_it_goes_on(lab: Lab) -> None:
    started(lab, "--workers", "2")
    before = processes(lab)
    with connect(lab, "client", OPEN, 10.0) as held:
        held.recv(100)
        signalled(before, signal.SIGSTOP)
        seconds = seconds_until_answered(lab)
        print(f"everything stopped: pods answer after {seconds:.2f} s")
        assert seconds < TIMEOUT + LATE
        asked_everywhere(lab)
        with asking(lab) as asked:
            signalled(before, signal.SIGCONT)
            wait_until("it relays", lambda: is_relayed(lab), 10.0)
        assert asked.failures == []
        assert lives(held)
    assert processes(lab) == before, "nobody was replaced"
    one, _ = workers(lab)
    signalled([one], signal.SIGSTOP)
    with asking(lab) as asked:
        wait_until("it is told", lambda: "worker" in lab.exec("host1", "userproxy", "status").stdout, 20.0)
        assert is_relayed(lab), "by the other worker"
    assert asked.failures == []
    signalled([one], signal.SIGCONT)


def test_a_daemon_that_stops_leaves_its_clients_to_the_pods_and_the_next_one_finds_them(lab: Lab) -> None:
    started(lab)
    daemon = lab.daemon("host1")
    with connect(lab, "client", OPEN, 10.0) as held, udp_from(lab.namespace("client"), OPEN, SHORT) as sender:
        held.recv(100)
        sender.send(b"who?")
        sender.recv(100)
        with asking(lab) as asked:
            daemon.send(signal.SIGTERM)
            wait_until("it stops", lambda: "stopping" in daemon.output(), 5.0)
            wait_until("others go to pods", lambda: not is_relayed_quietly(lab), 5.0)
            assert lives(held), "it has its time"
            daemon.send(signal.SIGTERM)
            assert daemon.wait(5.0) == 0
            asked_everywhere(lab)
            sender.send(b"who?")
            assert sender.recv(100), "conntrack does not lead it to where nobody listens"
            with pytest.raises(ConnectionRefusedError):
                ask(lab, "client", SHUT)
            started(lab)
            wait_until("it relays", lambda: is_relayed(lab), 10.0)
        print(f"stop and start: {asked.answered} answered, slowest {asked.slowest * 1000:.0f} ms")
        assert asked.failures == []
        assert asked.slowest < 1.0


def is_silent(lab: Lab) -> bool:
    """Whether the kernel holds that no worker is alive."""
    return "expires" not in lab.exec("host1", "nft", "list", "set", "inet", "userproxy", "alive").stdout


def is_relayed_quietly(lab: Lab) -> bool:
    """Whether a new connection is, as the kernel has it: a daemon that stops is asked nothing."""
    listed = lab.exec("host1", "nft", "list", "map", "inet", "userproxy", "relay").stdout
    return "relay-" in listed.replace("map relay", "")


def test_a_worker_that_is_full_has_the_next_clients_served_by_the_pods_and_nobody_waits(lab: Lab) -> None:
    started(lab, under=("prlimit", "--nofile=400:400"))
    with contextlib.ExitStack() as held:
        slowest = 0.0
        for _ in range(MORE_THAN_THE_LIMIT):
            began = time.monotonic()
            client = held.enter_context(connect(lab, "client", OPEN, 10.0))
            client.recv(100)
            slowest = max(slowest, time.monotonic() - began)
        with AdminClient(lab.admin_socket("host1")) as admin:
            relayed = admin.status().connections
            wait_until("it is told", lambda: any("limit" in each for each in admin.status().problems), 5.0)
        print(f"{MORE_THAN_THE_LIMIT} clients, {relayed} of them relayed, slowest {slowest * 1000:.0f} ms")
        assert slowest < 1.0
        assert LEAST < relayed < MORE_THAN_THE_LIMIT
    wait_until("it relays", lambda: is_relayed(lab), 10.0)
