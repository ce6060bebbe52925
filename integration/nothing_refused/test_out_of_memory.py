"""Out of memory: the kernel kills the worker, or somebody else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from integration.nothing_refused.memory import MEGABYTE, MemoryGroup, memory_group, prefer
from integration.nothing_refused.site import HEARTBEAT_SECONDS, LONG, told
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.nothing_refused.site import Site

SPARE = 8 * MEGABYTE


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """Before the site, since it has to be empty at the end."""
    with memory_group() as made:
        yield made


def test_the_worker_is_killed_and_another_one_serves(group: MemoryGroup, site: Site) -> None:
    site.start_daemon(under=group.under)
    (victim,) = site.workers
    prefer(victim)
    with site.load() as running:
        running.settle()
        group.leave(SPARE)
        group.eat(site.lab, "eater", 12)
        wait_until("the worker is killed", lambda: victim not in site.workers, 10.0)
        killed = time.monotonic()
        time.sleep(HEARTBEAT_SECONDS)
        running.go_on(500)
        report = running.finish()
    print(told(f"{group.kills} killed for want of memory", report, killed, HEARTBEAT_SECONDS))
    assert report.failed(killed + HEARTBEAT_SECONDS) == []
    assert report.failed(killed + HEARTBEAT_SECONDS, what="question") == []
    assert len(report.cuts) == LONG
    assert {each.kind for each in report.cuts} == {"reset"}


def test_others_are_killed_and_no_client_notices(group: MemoryGroup, site: Site) -> None:
    site.start_daemon(under=group.under)
    with site.load() as running:
        running.settle()
        group.leave(SPARE)
        short = time.monotonic()
        for number in range(3):
            group.eat(site.lab, f"eater{number}", 100, preferred=True).wait(10.0)
        running.go_on(500)
        report = running.finish()
    print(told(f"{group.kills} others killed for want of memory", report, short))
    assert group.kills >= 3  # the kernel may take one more while the memory of the last one comes back
    assert report.failures == []
    assert report.cuts == []
