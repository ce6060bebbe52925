"""New connections all the time to a steered Service while its processes are ended, stopped and flooded.

500 a second; USERPROXY_RATE=1000 has a thousand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from integration.nothing_refused.site import HEARTBEAT_SECONDS, Site, send, told
from integration.services import publish, withdraw
from integration.sockets import inside
from integration.steered.processes import steering_pids, wait_for_another
from userproxy.lab.deployment import Lab
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE_SECONDS = 0.05  # packets that wait when their process is killed are sent again a second later
_DEAF_PORT = 9999
_FLOOD = 5000
_RATE = float(os.environ.get("USERPROXY_RATE", "500"))


@pytest.fixture
def site(able: None, lab_name: str) -> Iterator[Site]:  # noqa: ARG001 - able is a condition
    with Lab(f"{lab_name}-chosen", daemons=False) as lab, Site(lab) as made:
        yield made


@contextlib.contextmanager
def deaf(lab: Lab) -> Iterator[Address]:
    """A Service whose pods take no notice of whoever comes."""
    rules = (
        f"add table ip deaf; add chain ip deaf input {{ type filter hook input priority 0; }}; "
        f"add rule ip deaf input tcp dport {_DEAF_PORT} drop"
    )
    for pod in ("server1", "server2"):
        lab.exec(pod, "nft", rules)
    pods = [Address(SERVER1.ip, _DEAF_PORT), Address(SERVER2.ip, _DEAF_PORT)]
    yield publish(lab, "deaf", "10.3.243.1", pods)
    withdraw(lab, "deaf")


def flood(lab: Lab, frontend: Address, stack: contextlib.ExitStack) -> None:
    """Very many first packets at once, and again a second later."""
    with inside(lab, "client"):
        for _ in range(_FLOOD):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex((frontend.ip, frontend.port))


def test_nobody_is_refused_whoever_floods_is_ended_or_stands_still(site: Site) -> None:
    site.start_daemon("--mode", "steered")
    with deaf(site.lab) as frontend, site.load(rate=_RATE) as running:
        running.settle()
        flooded = time.monotonic()
        with contextlib.ExitStack() as stack:
            flood(site.lab, frontend, stack)
            running.go_on(750)
        pids = steering_pids(site.lab)
        hurried = send([site.daemon.pid], signal.SIGHUP)
        wait_for_another(site.lab, pids)
        running.go_on(300)
        pids = steering_pids(site.lab)
        killed = send(pids, signal.SIGKILL)
        wait_for_another(site.lab, pids)
        running.go_on(300)
        pids = steering_pids(site.lab)
        frozen = send(pids, signal.SIGSTOP)
        wait_for_another(site.lab, pids)
        running.go_on(500)
        report = running.finish()
    print(told(f"{_FLOOD} first packets to pods that drop them", report, flooded))
    print(told("SIGHUP", report, hurried))
    print(told("kill -9 of the steering process", report, killed, _AT_ONCE_SECONDS))
    print(told("SIGSTOP of it", report, frozen, HEARTBEAT_SECONDS))
    assert [each for each in report.failed(0) if each.kind != "delayed"] == []
    assert report.failed(0, killed - _AT_ONCE_SECONDS) == []
    assert report.failed(killed + _AT_ONCE_SECONDS, frozen - _AT_ONCE_SECONDS) == []
    assert report.failed(frozen + HEARTBEAT_SECONDS) == []
    assert report.failed(frozen + HEARTBEAT_SECONDS, what="question") == []
    assert report.cuts == []
