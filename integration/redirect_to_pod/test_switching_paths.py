"""A Service that goes over to the other path, and back, loses no connection: neither a live nor a new one."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.servers import ask, asking, hold, lives, serving
from integration.redirect_to_pod.services import put, service, tcp
from integration.sockets import seconds_until_refused
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

NAME, IP = "switching", "10.3.242.4"
TCP = tcp(80, 7000)
FRONTEND = Address(IP, 80)
PODS = ("server1", "server2")
TO_POD, TO_HOST = "redirect-to-pod", "redirect-to-host"
SECONDS = 6.0


def paths(lab: Lab) -> Counter[str]:
    rows = lab.rows("host1", "connections", "--service", f"default/{NAME}")
    return Counter(row["path"] for row in rows)


@pytest.mark.parametrize(("before", "after"), [(TO_POD, TO_HOST), (TO_HOST, TO_POD)])
def test_live_connections_outlive_a_switch(lab: Lab, before: str, after: str) -> None:
    with serving(lab, PODS, 7000), service(lab, NAME, IP, [TCP], PODS, path=before):
        old = [hold(lab, member, FRONTEND)[0] for member in ("client", "host1", "server1") * 4]
        assert paths(lab) == {before: 12}
        put(lab, NAME, IP, [TCP], PODS, path=after)
        new = [hold(lab, member, FRONTEND)[0] for member in ("client", "host1", "server1") * 4]
        assert paths(lab) == {before: 12, after: 12}
        assert all(map(lives, old))
        put(lab, NAME, IP, [TCP], PODS, path=before)
        assert all(map(lives, old + new))
        print(f"{before} -> {after} -> {before}: 24 connections, all live: {dict(paths(lab))}")
        for each in old + new:
            each.close()


def test_new_connections_meet_no_gap_while_it_switches_to_and_fro(lab: Lab) -> None:
    def by_tcp(lab: Lab, member: str) -> str:
        return ask(lab, member, FRONTEND)[0]

    switches = 0
    with (
        serving(lab, PODS, 7000),
        service(lab, NAME, IP, [TCP], PODS, path=TO_POD),
        asking(lab, ("client", "host1", "server1"), {"TCP": by_tcp}) as asked,
    ):
        began = time.monotonic()
        for path in itertools.cycle((TO_HOST, TO_POD)):
            put(lab, NAME, IP, [TCP], PODS, path=path)
            switches += 1
            if time.monotonic() - began > SECONDS:
                break
    print(f"{switches} switches, {asked.answered.total()} connections, {len(asked.failures)} failed")
    assert not asked.failures, asked.failures[:5]
    assert asked.answered.total() > 100


@pytest.mark.parametrize("pods", [PODS, ()], ids=["with pods", "without pods"])
@pytest.mark.parametrize("member", ["client", "host1"])
def test_a_listener_is_refused_to_whoever_was_not_redirected(
    lab: Lab, member: str, pods: tuple[str, ...]
) -> None:
    with service(lab, NAME, IP, [TCP], pods, path=TO_HOST):
        (row,) = [each for each in lab.rows("host1", "services") if NAME in each["service"]]
        seconds = seconds_until_refused(lab, member, Address.parse(row["listener"]))
    print(f"{member} to {row['listener']}: refused after {seconds * 1000:.1f} ms")
    assert seconds < 0.5
