"""Nothing is left behind: neither when a daemon is told to end, nor when none comes back."""

from __future__ import annotations

import contextlib
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration.restart.load import Transfer, has_started, workers
from userproxy.lab.processes import running_in, wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend


def is_cut(transfer: Transfer) -> bool:
    with contextlib.suppress(OSError):
        return not transfer.finish()
    return True


def test_sigterm_gives_connections_of_earlier_workers_their_time_too(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--drain-seconds", "3", "--on-stop", "remove")
    patient, hasty = Transfer(lab, FRONTEND), Transfer(lab, FRONTEND)
    for number in (2, 3):
        daemon.send(signal.SIGHUP)
        wait_until("it started anew", partial(has_started, lab, number), 15.0)
        lab.wait_for_daemon("host1")
    assert len(workers(lab)) == 2
    began = time.monotonic()
    daemon.send(signal.SIGTERM)
    assert hasty.finish()
    assert daemon.wait(10.0) == 0
    seconds = time.monotonic() - began
    print(f"a connection of an earlier worker kept the daemon for {seconds:.1f} s (--drain-seconds 3)")
    assert 2.5 < seconds < 6
    assert is_cut(patient)
    assert running_in([lab.namespace("host1")]) == []
    assert "connections_cut=1" in daemon.output()
    assert lab.exec("host1", "nft", "list", "tables").stdout == ""
    assert "the control side is gone" not in daemon.output()


def test_a_second_sigterm_waits_for_nobody(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--drain-seconds", "60")
    transfer = Transfer(lab, FRONTEND)
    wait_until("it is relayed", lambda: bool(lab.rows("host1", "connections")), 5.0)
    began = time.monotonic()
    daemon.send(signal.SIGTERM)
    wait_until("it is stopping", lambda: "stopping" in daemon.output(), 5.0)
    daemon.send(signal.SIGTERM)
    assert daemon.wait(10.0) == 0
    print(f"a second SIGTERM ends it after {time.monotonic() - began:.2f} s")
    assert is_cut(transfer)
    assert running_in([lab.namespace("host1")]) == []
    assert "connections_cut=1" in daemon.output()


def test_orphans_end_when_their_time_is_over(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--orphan-seconds", "2")
    transfer = Transfer(lab, FRONTEND)
    daemon.kill()
    began = time.monotonic()
    transfer.some()
    wait_until("they have ended", lambda: not workers(lab), 10.0)
    print(f"--orphan-seconds 2: ended {time.monotonic() - began:.1f} s after the daemon was killed")
    assert 1.5 < time.monotonic() - began < 5
    assert is_cut(transfer)


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_cleanup_ends_orphans(lab: Lab, state: str) -> None:
    daemon = lab.start_daemon("host1", "--orphan-seconds", "600", "--workers", "2")
    transfer = Transfer(lab, FRONTEND)
    refused = lab.exec("host1", "userproxy", "cleanup", check=False)
    assert refused.returncode == 1
    daemon.kill()
    orphans = workers(lab)
    if state == "stopped":
        lab.exec("host1", "kill", "-STOP", *map(str, orphans))
    said = lab.userproxy("host1", "cleanup").splitlines()
    print(f"cleanup, orphans {state}: {said}")
    assert [f"ended worker {pid}" for pid in orphans] == [line for line in said if line.startswith("ended")]
    assert workers(lab) == []
    assert is_cut(transfer)
    assert "ended" not in lab.userproxy("host1", "cleanup")
