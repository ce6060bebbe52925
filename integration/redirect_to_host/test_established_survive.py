"""Whoever is connected stays connected, whatever happens to the Service, its manifest or the ruleset."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_host.ends import PORT, Ends, connected
from integration.services import host_port, publish, withdraw
from integration.sockets import connect, echoes
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NAME, IP = "stays", "10.3.241.15"
ONE, OTHER = Address(SERVER1.ip, PORT), Address(SERVER2.ip, PORT)


@pytest.fixture
def ends(lab: Lab) -> Iterator[Ends]:
    """A connection through the Service, whose manifest is gone afterwards, however the scenario left it."""
    with connected(lab, NAME, IP, SERVER1) as both:
        yield both


def test_its_endpoint_goes_and_others_come(lab: Lab, ends: Ends) -> None:
    publish(lab, NAME, IP, [OTHER])
    assert echoes(*ends)


def test_its_service_is_changed(lab: Lab, ends: Ends) -> None:
    publish(lab, NAME, "10.3.241.16", [ONE], port=81)
    assert echoes(*ends)


def test_its_service_is_deleted_and_comes_back(lab: Lab, ends: Ends) -> None:
    before = host_port(lab, NAME)
    withdraw(lab, NAME)
    assert echoes(*ends)
    publish(lab, NAME, IP, [ONE])
    assert echoes(*ends)
    assert host_port(lab, NAME) == before


def test_all_manifests_vanish(lab: Lab, ends: Ends) -> None:
    aside = lab.manifests.with_name("aside")
    lab.manifests.rename(aside)
    try:
        with AdminClient(lab.admin_socket("host1")) as admin:
            wait_until("it is noticed", lambda: bool(admin.status().problems), 15.0)
            (problem,) = admin.status().problems
            assert str(lab.manifests) in problem
            assert not admin.status().source.stale_seconds < 0
        assert echoes(*ends)
        # Nobody deleted a Service: new connections work too.
        connect(lab, "client", Address(IP, 80)).close()
    finally:
        if lab.manifests.exists():
            shutil.rmtree(lab.manifests)
        aside.rename(lab.manifests)
    with AdminClient(lab.admin_socket("host1")) as admin:
        wait_until("it is in order again", lambda: not admin.status().problems, 15.0)


def test_somebody_removes_our_routes(lab: Lab, ends: Ends) -> None:
    lab.exec("host1", "ip", "route", "flush", "table", "10110")
    lab.exec("host1", "ip", "rule", "del", "priority", "32800")
    assert echoes(*ends)
    began = time.monotonic()
    wait_until("the routes are back", lambda: IP in routes(lab) and "32800" in routes(lab), 40.0)
    print(f"the routes were back in {time.monotonic() - began:.1f} s")


def routes(lab: Lab) -> str:
    shown = (("route", "show", "table", "all"), ("rule", "show"))
    return "".join(lab.exec("host1", "ip", *argv).stdout for argv in shown)
