"""The API server goes away under load, and comes back: no request fails, and nothing is done twice.

With USERPROXY_FULL=1 it is away for a minute.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.source.site import end_load, reference, seconds_until, start_load, with_pods

if TYPE_CHECKING:
    from integration.kubernetes.source.site import Site

AWAY_SECONDS = 60.0 if os.environ.get("USERPROXY_FULL") else 10.0
CAUGHT_UP_SECONDS = 5.0


@pytest.mark.parametrize("compacted", [False, True], ids=["plain", "compacted"])
@pytest.mark.timeout(240)
def test_the_api_server_goes_and_comes_back(site: Site, compacted: bool) -> None:
    service, endpoints = reference()
    site.cluster.apply(service, endpoints)
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    actions = len(site.actions())
    load = start_load(site)

    site.cluster.kill_apiserver()
    time.sleep(AWAY_SECONDS)
    told = site.lab.exec("host1", "userproxy", "status", "-o", "json", check=False)
    assert told.returncode == 1, "it cannot follow its source"
    source = json.loads(told.stdout)["source"]
    stale = source["stale_seconds"]
    assert "Connection refused" in source["problem"]
    status, body = site.page("/healthz")
    if compacted:
        site.cluster.compact_etcd()
    site.cluster.start_apiserver()
    seconds = seconds_until(lambda: '"stale_seconds":0.0' in site.page("/healthz")[1], 60.0)
    time.sleep(1.0)
    assert len(site.actions()) == actions, "the outage made the daemon do something"
    site.cluster.apply(with_pods(endpoints, "10.0.1.2"))
    followed = seconds_until(lambda: site.answering() == {"server1"})

    outcome = end_load(load)
    print(
        f"away for {AWAY_SECONDS:g} s{', compacted' if compacted else ''}: {outcome['requests']} requests, "
        f"{len(outcome['failures'])} failed; status said {stale:.1f} s stale, /healthz {status}; in touch "
        f"{seconds:.2f} s after the server was ready (wanted: {CAUGHT_UP_SECONDS:g}), a change followed in "
        f"{followed:.3f} s; plans applied: {len(site.actions()) - actions} (1 is that change)"
    )
    assert outcome["failures"] == [], site.log()[-20:]
    assert outcome["requests"] > 100
    assert stale > AWAY_SECONDS / 2
    assert status == 200, "the proxy itself is healthy"
    assert '"synced":true' in body
    assert seconds < CAUGHT_UP_SECONDS
    assert len(site.actions()) == actions + 1


def test_changes_made_while_out_of_touch_are_caught_up(site: Site) -> None:
    """The daemon is frozen while the cluster changes and etcd forgets what came in between."""
    service, endpoints = reference()
    site.cluster.apply(service, endpoints)
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    site.daemon.send(signal.SIGSTOP)
    try:
        site.cluster.apply(with_pods(endpoints, "10.0.2.2"))
        site.cluster.kill_apiserver()
        site.cluster.compact_etcd()
        site.cluster.start_apiserver()
    finally:
        site.daemon.send(signal.SIGCONT)
    seconds = seconds_until(lambda: site.answering() == {"server2"})
    print(f"a change from before the compaction: in effect {seconds:.2f} s after the daemon woke")
    assert seconds < CAUGHT_UP_SECONDS


def test_an_api_server_that_hangs_does_not_hang_us(site: Site) -> None:
    service, endpoints = reference()
    site.cluster.apply(service, endpoints)
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    pid = site.cluster.apiserver_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert site.answering() == {"server1", "server2"}
        assert site.page("/livez")[0] == 200
    finally:
        os.kill(pid, signal.SIGCONT)
