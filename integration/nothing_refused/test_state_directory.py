"""The state directory is full, and gone: what is served stays so, over a crash and a start too."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from integration.nothing_refused.site import told
from integration.services import published
from userproxy.lab.topology import SERVER1

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site

FULL = """mkdir -p "$0" && mount -t tmpfs -o size=8k tmpfs "$0" && exec "$@" """


def test_it_is_full(site: Site) -> None:
    state = site.lab.state("host1")
    # In a mount namespace of the daemon's own.
    daemon = site.start_daemon(under=("unshare", "--mount", "sh", "-c", FULL, str(state)))
    inside = f"/proc/{daemon.pid}/root{state}"
    with site.load() as running:
        running.settle()
        full = time.monotonic()
        site.lab.exec("host1", "sh", "-c", f"yes >{inside}/junk", check=False)
        with published(site.lab, "later", "10.3.241.161", [SERVER1.address]):
            running.go_on(500)
        running.go_on(500)
        report = running.finish()
    print(told("a full state directory", report, full))
    print("  " + daemon.last_line())
    assert report.failures == []
    assert report.cuts == []


def test_it_is_gone(site: Site) -> None:
    daemon = site.start_daemon()
    with site.load() as running:
        running.settle()
        gone = time.monotonic()
        shutil.rmtree(site.lab.state("host1"))
        with published(site.lab, "later", "10.3.241.161", [SERVER1.address]):
            running.go_on(500)
        daemon.kill()
        site.start_daemon()
        running.go_on(500)
        report = running.finish()
    print(told("a state directory that is gone, and kill -9 and a start", report, gone))
    assert report.failures == []
    assert report.cuts == []
