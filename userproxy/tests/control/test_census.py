"""How many Services and backends there are of each kind, and what single Services get told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.model.counters import Counters
from userproxy.model.counts import Vitals
from userproxy.model.messages import Totals
from userproxy.model.service import EntryKind, ServicePortName, TrafficPolicy
from userproxy.model.snapshot import EMPTY
from userproxy.tests.control.rig.node import (
    CART,
    POD1,
    POD2,
    WEB,
    ControlSide,
    config,
    count,
    counts,
    service,
    snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.model.figures import Figures
    from userproxy.tests.sockets import Sockets

VITALS = Vitals(
    worker=0,
    connection_limit=100,
    files=10,
    file_limit=200,
    pipes=1,
    pipe_limit=20,
    sessions=3,
    session_limit=30,
    resident_bytes=1 << 20,
)


@pytest.fixture
def side(tmp_path: Path, sockets: Sockets) -> ControlSide:
    return ControlSide(tmp_path, sockets)


async def figures(side: ControlSide) -> Figures:
    return (await side.view.measured()).figures


async def test_backends_are_counted_by_their_state_now(side: ControlSide) -> None:
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    assert (await figures(side)).backends == {"up": 4}
    side.workers.parts = [counts(WEB, count(POD1, 0, "ejected", 3.0), count(POD2, 1))]
    assert (await figures(side)).backends == {"up": 3, "ejected": 1}
    await side.apply(snapshot(service(), pods=[POD1]))
    assert (await figures(side)).backends == {"up": 0, "ejected": 1, "removed": 1}
    await side.apply(EMPTY)
    side.workers.parts = []
    assert not any((await figures(side)).backends.values())


async def test_services_without_a_backend_are_counted_by_why(side: ControlSide) -> None:
    empty = snapshot(service(), pods=())
    await side.apply(empty)
    assert (await figures(side)).services_down == {"no-endpoints": 1}
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    side.workers.parts = [counts(WEB, count(POD1, 0, "down", 3.0), count(POD2, 0, "ejected", 3.0))]
    assert (await figures(side)).services_down == {"no-endpoints": 0, "none-up": 1}
    side.workers.parts = [counts(WEB, count(POD1, 0, "down", 3.0))]
    assert not any((await figures(side)).services_down.values())


async def test_services_whose_policy_finds_nobody_here_are_counted_by_family(side: ControlSide) -> None:
    local = msgspec.structs.replace(service(), internal_traffic_policy=TrafficPolicy.LOCAL)
    await side.apply(snapshot(local))
    found = await figures(side)
    assert found.no_local_endpoints == {"IPv4 internal": 1}
    assert found.services_down == {"not-here": 1}
    entry = msgspec.structs.replace(local.entries[0], kind=EntryKind.EXTERNAL_IP)
    outside = msgspec.structs.replace(
        service(CART), entries=(entry,), external_traffic_policy=TrafficPolicy.LOCAL
    )
    await side.apply(snapshot(outside))
    assert (await figures(side)).no_local_endpoints == {"IPv4 internal": 0, "IPv4 external": 1}


async def test_what_workers_take_is_told_by_their_places(side: ControlSide) -> None:
    side.workers.parts = [
        Totals(connections=1, vitals=VITALS),
        Totals(connections=2, vitals=msgspec.structs.replace(VITALS, worker=1, files=70), paused="no files"),
        Totals(connections=0, vitals=msgspec.structs.replace(VITALS, files=5)),  # it retires
        Totals(connections=0),  # so does this one, of an earlier version
    ]
    found = await figures(side)
    assert found.worker_open_files == {"0": 15, "1": 70}
    assert found.worker_open_files_limit == {"0": 200, "1": 200}
    assert (found.workers, found.workers_paused, found.connections) == (4, 1, 3)


async def test_host_ports_in_use_and_left(side: ControlSide) -> None:
    side.workers.occupied = {10400}
    await side.apply(snapshot(service()))
    assert (await figures(side)).host_ports == {"used": 1, "occupied": 1, "free": 598}


async def test_single_services_are_shown_by_how_many_connections_they_had(
    tmp_path: Path, sockets: Sockets
) -> None:
    side = ControlSide(tmp_path, sockets, config(metrics_per_service=1))
    idle = ServicePortName("default", "idle")
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80"), service(idle, "10.3.0.3:80")))
    gone = {"default/gone": 90}
    side.workers.living = {7: Counters(service_connections_opened={"default/web": 3, "shop/cart:http": 5})}
    side.workers.past = Counters(
        service_connections_opened={"default/web": 3, **gone}, service_relayed_bytes={"default/web up": 6}
    )
    side.workers.parts = [counts(WEB, count(POD1, 2), count(POD2, 0, "ejected", 1.0))]
    measured = await side.view.measured()
    assert measured.counters.service_connections_opened == {"default/web": 6}
    assert measured.counters.service_relayed_bytes == {"default/web up": 6}
    assert measured.figures.service_connections == {"default/web": 2}
    assert measured.figures.service_backends == {"default/web up": 1, "default/web ejected": 1}
    assert measured.figures.services_left_out == 1
    assert side.workers.past.service_connections_opened == {"default/web": 3}, "what is gone is forgotten"
