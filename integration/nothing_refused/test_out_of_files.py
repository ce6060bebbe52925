"""Out of file descriptors: whom the worker cannot take, the kernel sends to the pods."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from integration.nothing_refused.site import told

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site

FILES = 700
"""Enough for the long connections of one load, and not for those of two."""


def test_more_long_connections_than_it_may_have(site: Site) -> None:
    site.start_daemon(under=("prlimit", f"--nofile={FILES}:{FILES}"))
    with site.load() as running:
        running.settle()
        crowded = time.monotonic()
        with site.load(rate=50, held=200, transfers=0) as crowd:
            crowd.settle(held=200, connections=50)
            running.go_on(500)
            rows = len(site.connections)
            other = crowd.finish()
        running.go_on(500)
        report = running.finish()
    print(told(f"400 long connections, {FILES} files, {rows} of them relayed", report, crowded))
    print(told("  the second half of them", other, crowded))
    assert rows < 400
    assert report.failures == other.failures == []
    assert [*report.cuts, *other.cuts] == []
