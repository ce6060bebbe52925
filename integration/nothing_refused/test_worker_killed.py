"""kill -9 of a worker: of the only one, and of one of two."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from integration.nothing_refused.site import HEARTBEAT_SECONDS, LONG, send, told

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site


def test_the_only_one_is_replaced_and_its_connections_end_by_a_reset(site: Site) -> None:
    site.start_daemon()
    with site.load() as running:
        running.settle()
        killed = send(site.workers, signal.SIGKILL)
        time.sleep(HEARTBEAT_SECONDS)
        running.go_on(500)
        report = running.finish()
    print(told("kill -9 of the only worker", report, killed, HEARTBEAT_SECONDS))
    assert report.failed(killed + HEARTBEAT_SECONDS) == []
    assert report.failed(killed + HEARTBEAT_SECONDS, what="question") == []
    assert len(report.cuts) == LONG
    assert {each.kind for each in report.cuts} == {"reset"}


def test_of_two_only_its_share_is_cut(site: Site) -> None:
    site.start_daemon("--workers", "2")
    victim, _ = site.workers
    with site.load() as running:
        running.settle()
        owners = [each.partition("-")[0] for each in site.connections]
        killed = send([victim], signal.SIGKILL)
        time.sleep(HEARTBEAT_SECONDS)
        running.go_on(500)
        report = running.finish()
    print(told("kill -9 of one of two workers", report, killed, HEARTBEAT_SECONDS))
    share = owners.count(str(victim)) / len(owners)
    print(f"  the dead one had {share:.0%} of the connections")
    assert report.failed(killed + HEARTBEAT_SECONDS) == []
    assert report.failed(killed + HEARTBEAT_SECONDS, what="question") == []
    assert {each.kind for each in report.cuts} == {"reset"}
    assert len(report.cuts) < LONG * (share + 0.1)
