"""SIGSTOP, and SIGCONT much later: who hangs is passed by, and what it holds goes on afterwards."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from integration.nothing_refused.site import (
    GAP_SECONDS,
    HEARTBEAT_SECONDS,
    send,
    told,
)

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site


def test_everything_stands_still_for_a_while(site: Site) -> None:
    site.start_daemon()
    with site.load() as running:
        running.settle()
        pids = site.processes
        frozen = send(pids, signal.SIGSTOP)
        time.sleep(GAP_SECONDS)
        send(pids, signal.SIGCONT)
        running.go_on(500)
        report = running.finish()
    print(told(f"SIGSTOP of all for {GAP_SECONDS:g} s", report, frozen, HEARTBEAT_SECONDS))
    assert report.failed(frozen + HEARTBEAT_SECONDS) == []
    assert report.failed(frozen + HEARTBEAT_SECONDS, what="question") == []
    assert report.cuts == []


def test_one_of_two_workers_stands_still(site: Site) -> None:
    site.start_daemon("--workers", "2")
    victim, _ = site.workers
    with site.load() as running:
        running.settle()
        frozen = send([victim], signal.SIGSTOP)
        time.sleep(GAP_SECONDS)
        send([victim], signal.SIGCONT)
        running.go_on(500)
        report = running.finish()
    print(told(f"SIGSTOP of one of two workers for {GAP_SECONDS:g} s", report, frozen, HEARTBEAT_SECONDS))
    assert report.failed(frozen + HEARTBEAT_SECONDS) == []
    assert report.failed(frozen + HEARTBEAT_SECONDS, what="question") == []
    assert report.cuts == []
