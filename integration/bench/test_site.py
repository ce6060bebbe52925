"""Where a path is measured: that it does not pay for what only another one needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from userproxy.bench.services import CLIENT, HOST, SERVER1, SERVER2
from userproxy.bench.site import Site
from userproxy.lab import network
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from collections.abc import Generator

MEMBERS = (CLIENT.name, HOST.name, SERVER1.name, SERVER2.name)


@pytest.fixture
def site() -> Generator[Site]:
    """A path's lab that is not up yet."""
    try:
        network.preflight(["iperf3", "nginx", "nsd"])
    except LabError as error:
        pytest.skip(str(error))
    made = Site(f"its{os.getpid()}")
    yield made
    made.down()


def events(site: Site) -> dict[str, str]:
    """By member, for whom conntrack makes events there: 0: for nobody; 2: if somebody hears them."""
    switch = ("sysctl", "-n", "net.netfilter.nf_conntrack_events")
    return {member: site.lab.exec(member, *switch).stdout.strip() for member in MEMBERS}


def test_conntrack_makes_no_events_where_the_path_hears_none(site: Site) -> None:
    site.up()

    assert events(site) == dict.fromkeys(MEMBERS, "0")


def test_the_host_of_a_path_that_hears_them_has_them(site: Site) -> None:
    site.up(hears=True)

    assert events(site) == dict.fromkeys(MEMBERS, "0") | {HOST.name: "2"}
