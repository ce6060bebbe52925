"""kill -9 of the daemon: its workers serve on, and the next one takes them over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from integration.nothing_refused.site import HEARTBEAT_SECONDS, told

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site


def test_no_client_notices(site: Site) -> None:
    daemon = site.start_daemon("--workers", "2")
    with site.load() as running:
        running.settle()
        killed = time.monotonic()
        daemon.kill()
        running.go_on(int(500 * HEARTBEAT_SECONDS) + 250)
        site.start_daemon("--workers", "2")
        running.go_on(500)
        report = running.finish()
    print(told("kill -9 of the daemon, and a start", report, killed))
    assert report.failures == []
    assert report.cuts == []
