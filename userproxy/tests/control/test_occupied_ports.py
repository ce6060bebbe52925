"""Host ports that something else on the node has: passed over, one by one, and nobody else waits for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.model.address import Address
from userproxy.model.snapshot import EMPTY
from userproxy.model.state import NodeState, Refuse, ToListener
from userproxy.tests.control.rig.node import CART, WEB, ControlSide, config, many, service, snapshot, tcp

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")

FIRST = 10400
HOST = "10.100.0.2"


async def test_an_occupied_port_is_passed_over_and_told_once(side: ControlSide) -> None:
    side.workers.occupied = {FIRST}
    with capture_logs() as lines:
        await side.apply(snapshot(service()))
    assert side.port() == FIRST + 1
    assert side.kernel.captures == {tcp("10.3.0.1:80"): ToListener(Address(HOST, FIRST + 1))}
    occupied = [line["port"] for line in lines if "occupied" in line["event"]]
    assert occupied == [FIRST]


@pytest.mark.parametrize("crowd", [100, 101, 250])
async def test_a_crowd_of_occupied_ports_does_not_hold_up_the_service_that_meets_it(
    side: ControlSide, crowd: int
) -> None:
    side.workers.occupied = set(range(FIRST, FIRST + crowd))
    await side.apply(snapshot(service()))
    assert side.port() == FIRST + crowd
    assert side.problems() == []


async def test_nobody_else_waits_while_one_service_looks_for_a_port(side: ControlSide) -> None:
    others = many(3)
    await side.apply(snapshot(*others))
    side.workers.occupied = set(range(FIRST + 3, FIRST + 200))
    told = await side.apply(snapshot(service(), *others[1:]))
    assert told[:5] == [
        "serve default/web on 10403 fails",
        "refuse 1, uncapture 1",
        "forget flows of 1",
        "close default/service-000",
        "serve default/web on 10404 fails",
    ]
    assert told[-2:] == ["serve default/web on 10600", "capture 1"]


async def test_many_services_that_meet_a_crowd_all_get_a_port(side: ControlSide) -> None:
    side.workers.occupied = set(range(FIRST, FIRST + 300, 2))
    services = many(200)
    await side.apply(snapshot(*services))
    ports = {side.port(one.name) for one in services}
    assert len(ports) == 200
    assert not ports & side.workers.occupied
    assert side.problems() == []


async def test_a_range_that_others_have_to_the_last_port_is_refused_told_and_ends(
    tmp_path: Path, sockets: Sockets
) -> None:
    side = ControlSide(tmp_path, sockets, config("10400-10549"))
    side.workers.occupied = set(range(10400, 10550))
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    assert set(side.kernel.captures.values()) == {Refuse()}
    assert side.problems() == ["default/web: PortRangeExhausted", "shop/cart:http: PortRangeExhausted"]
    assert [row.listener for row in await side.view.services()] == [None, None]


async def test_a_port_that_becomes_free_is_had_by_whoever_waits_for_one(
    tmp_path: Path, sockets: Sockets
) -> None:
    side = ControlSide(tmp_path, sockets, config("10400-10401"))
    assert not side.reconciler.retry_occupied()
    side.workers.occupied = {10400, 10401}
    await side.apply(snapshot(service()))
    assert await side.again() == [], "occupied ports are left alone"
    side.workers.occupied = {10401}
    assert side.reconciler.retry_occupied()
    await side.again()
    assert side.port() == 10400
    assert side.problems() == []
    assert not side.reconciler.retry_occupied()


async def test_a_remembered_port_that_is_occupied_after_a_restart_is_given_up(
    tmp_path: Path, sockets: Sockets
) -> None:
    before = ControlSide(tmp_path, sockets)
    await before.apply(snapshot(service()))
    side = ControlSide(tmp_path, sockets)
    side.reconciler.adopt(NodeState(captures=before.kernel.captures))
    side.kernel.captures = before.kernel.captures
    side.workers.occupied = {before.port()}
    await side.apply(snapshot(service()))
    assert side.port() == before.port() + 1


async def test_a_service_that_comes_back_gets_its_port_back(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    await side.apply(EMPTY)
    await side.apply(snapshot(service(CART, "10.3.0.2:80")))
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    assert (side.port(WEB), side.port(CART)) == (FIRST, FIRST + 1)
