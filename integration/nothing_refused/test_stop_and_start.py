"""SIGTERM, and a start when it has long been over: whoever comes is served all the time."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from integration.nothing_refused.site import GAP_SECONDS, LONG, told
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from integration.nothing_refused.site import Site

DRAIN_SECONDS = 2.0
MODES = ["redirect-to-host", "redirect-to-pod"] if os.environ.get("USERPROXY_FULL") else ["redirect-to-host"]
"""What the kernel carries lives on anyhow: `integration/redirect_to_pod/test_stopping.py` tells of it."""


@pytest.mark.parametrize("mode", MODES)
def test_whoever_comes_is_served_and_whoever_is_there_has_the_drain_time(site: Site, mode: str) -> None:
    options = ("--mode", mode, "--drain-seconds", str(DRAIN_SECONDS))
    daemon = site.start_daemon(*options)
    with site.load() as running:
        running.settle()
        stopped = time.monotonic()
        daemon.send(signal.SIGTERM)
        assert daemon.wait(DRAIN_SECONDS + 5.0) == 0
        ended = time.monotonic()
        wait_until(
            "nobody has served for a while",
            lambda: time.monotonic() > stopped + GAP_SECONDS,
            GAP_SECONDS + 1.0,
        )
        site.start_daemon(*options)
        started = time.monotonic()
        running.go_on(500)
        report = running.finish()
    print(told(f"{mode}: SIGTERM, and a start after {GAP_SECONDS:g} s", report, stopped))
    print(f"  it ended after {ended - stopped:.2f} s, and served again after {started - stopped:.2f} s")
    assert report.failures == []
    if mode == "redirect-to-pod":  # the kernel carries them, and its rules stay
        assert report.cuts == []
    else:
        assert len(report.cuts) == LONG
        assert {each.kind for each in report.cuts} == {"reset"}
        assert min(each.at for each in report.cuts) >= stopped + DRAIN_SECONDS
