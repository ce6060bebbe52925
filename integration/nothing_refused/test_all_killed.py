"""kill -9 of all processes at once: the kernel sends whoever comes to the pods by itself."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from integration.nothing_refused.site import HEARTBEAT_SECONDS, LONG, send, told

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site

MOST_UNLUCKY = 200
"""Of a thousand: those that the dead had, and those who come again from the port of one that was cut."""


def test_none_is_refused_after_the_timeout_of_the_heartbeat_and_few_before(site: Site) -> None:
    site.start_daemon()
    with site.load() as running:
        running.settle()
        killed = send(site.processes, signal.SIGKILL)
        time.sleep(HEARTBEAT_SECONDS)
        running.go_on(500)
        site.daemon.wait(1.0)
        site.start_daemon()
        running.go_on(500)
        report = running.finish()
    print(told("kill -9 of all, and a start", report, killed, HEARTBEAT_SECONDS))
    assert report.failed(killed + HEARTBEAT_SECONDS) == []
    assert report.failed(killed + HEARTBEAT_SECONDS, what="question") == []
    assert len(report.failed(killed)) < MOST_UNLUCKY
    assert len(report.cuts) == LONG
    assert {each.kind for each in report.cuts} == {"reset"}
