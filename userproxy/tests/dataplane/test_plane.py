"""The data plane as a whole: what it serves, what becomes of connections, and what it tells of them."""

from __future__ import annotations

import asyncio
import os
from _socket import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.model.service import PoolName, ServicePortName
from userproxy.model.settings import Settings
from userproxy.tests.dataplane.rig.plane import CART, NOT_CHECKED, WEB, Plane, address_of, readable
from userproxy.tests.dataplane.rig.proxy import reset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.model.address import Address
    from userproxy.tests.sockets import Sockets

AGES = Settings(check=NOT_CHECKED, max_connection_age=0.0)
LEAVES = Settings(check=NOT_CHECKED, close_on_removal=0.0)


@pytest.fixture
def plane(sockets: Sockets) -> Iterator[Plane]:
    made = Plane(sockets)
    yield made
    made.shut()


def test_a_client_is_relayed_to_a_backend(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    assert plane.relays(*plane.pair(serve, backend))
    assert plane.plane.serves == [serve]
    assert plane.told() == [(str(address_of(backend)), "up", 1)]


def test_new_backends_are_taken_over_on_the_open_listener_and_old_connections_live_on(plane: Plane) -> None:
    first, second = plane.backend(), plane.backend()
    serve = plane.serve(first)
    old = plane.pair(serve, first)
    plane.change(serve, second)
    assert plane.relays(*plane.pair(serve, second))
    assert plane.relays(*old)
    assert sorted(plane.told()) == sorted(
        [(str(address_of(second)), "up", 1), (str(address_of(first)), "removed", 1)]
    )
    plane.finish(*old)
    assert plane.told() == [(str(address_of(second)), "up", 1)]


def test_another_listener_takes_the_place_of_one_that_goes_on_until_the_rules_have_changed(
    plane: Plane,
) -> None:
    backend = plane.backend()
    before = plane.serve(backend)
    waiting = plane.connect(before)
    after = plane.serve(backend)
    assert plane.plane.serves == [after]
    assert plane.relays(waiting, plane.taken(backend))
    for serve in (before, after):
        assert plane.relays(*plane.pair(serve, backend))
    late = plane.connect(before)
    plane.timers.tick()
    with pytest.raises(ConnectionRefusedError):
        plane.connect(before)
    assert plane.relays(late, plane.taken(backend))
    assert [count.connections for count in plane.report()] == [4]


def test_a_former_listener_ends_with_its_service(plane: Plane) -> None:
    backend = plane.backend()
    before = plane.serve(backend)
    plane.serve(backend)
    waiting = plane.connect(before)
    plane.plane.close([PoolName.of(WEB)])
    with pytest.raises(ConnectionRefusedError):
        plane.connect(before)
    assert plane.relays(waiting, plane.taken(backend))
    assert [count.connections for count in plane.report()] == [1]


async def test_a_former_listener_ends_when_its_worker_retires(plane: Plane) -> None:
    before = plane.serve()
    plane.serve()
    await plane.plane.drain(None)
    with pytest.raises(ConnectionRefusedError):
        plane.connect(before)


def test_the_same_listener_again_changes_nothing(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    old = plane.pair(serve, backend)
    again = socket(fileno=os.dup(plane.plane.listeners[PoolName.of(WEB)].fileno()))
    plane.plane.serve([serve], {PoolName.of(WEB): again})
    assert plane.relays(*plane.pair(serve, backend))
    assert plane.relays(*old)


def test_news_of_a_service_that_is_not_served_here_opens_nothing(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    plane.plane.close([PoolName.of(WEB)])
    plane.change(serve, backend)
    assert (plane.plane.serves, dict(plane.plane.services)) == ([], {})


def test_a_client_that_has_reset_already_when_it_is_let_in_costs_no_pod_a_connection(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    reset(plane.connect(serve))
    plane.until(lambda: plane.plane.counters.connections_opened)
    assert plane.plane.counters.connections_ended == {"client-reset": 1}
    assert not readable(backend)


def test_with_several_workers_each_begins_elsewhere_in_the_rotation(sockets: Sockets) -> None:
    second = Plane(sockets, place=(1, 2))
    backends = [second.backend(), second.backend()]
    serve = second.serve(*backends)
    second.pair(serve, backends[1])
    second.pair(serve, backends[0])
    second.shut()


def test_a_closed_service_refuses_and_is_told_of_until_its_last_connection_ends(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    pairs = [plane.pair(serve, backend) for _ in range(2)]
    plane.plane.close([PoolName.of(WEB)])
    with pytest.raises(ConnectionRefusedError):
        plane.connect(serve)
    for left in (2, 1):
        assert [count.connections for count in plane.report()] == [left]
        assert plane.told() == [(str(address_of(backend)), "removed", left)]
        assert plane.relays(*pairs[-1])
        plane.finish(*pairs.pop())
    assert plane.report() == []
    assert plane.plane._retired == {}


def test_whoever_had_connected_when_a_service_is_closed_is_served(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    waiting = plane.connect(serve)
    plane.plane.close([PoolName.of(WEB)])
    assert plane.relays(waiting, plane.taken(backend))


def test_a_service_that_comes_back_is_told_of_together_with_its_former_connections(plane: Plane) -> None:
    backend = plane.backend()
    before = plane.pair(plane.serve(backend), backend)
    plane.plane.close([PoolName.of(WEB)])
    after = plane.pair(plane.serve(backend), backend)
    assert [count.connections for count in plane.report()] == [1, 1]
    assert plane.told() == [(str(address_of(backend)), "up", 1)] * 2
    plane.finish(*before)
    assert plane.told() == [(str(address_of(backend)), "up", 1)]
    assert plane.relays(*after)


def test_one_service_s_end_is_nothing_to_another(plane: Plane) -> None:
    backend = plane.backend()
    web, cart = plane.serve(backend), plane.serve(backend, name=CART)
    old = plane.pair(web, backend)
    plane.plane.close([PoolName.of(WEB)])
    assert plane.relays(*plane.pair(cart, backend))
    assert plane.relays(*old)
    assert [count.connections for count in plane.report(CART)] == [1]


async def test_who_retires_accepts_no_more_and_waits_for_its_connections(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    old = plane.pair(serve, backend)
    retiring = asyncio.ensure_future(plane.plane.drain(None))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        plane.connect(serve)
    assert plane.relays(*old)
    assert not retiring.done()
    plane.finish(*old)
    assert await retiring == 0


async def test_who_retires_is_told_what_becomes_of_its_connections_backends(plane: Plane) -> None:
    first, second = plane.backend(), plane.backend()
    serve = plane.serve(first)
    client, _ = plane.pair(serve, first)
    retiring = asyncio.ensure_future(plane.plane.drain(None))
    await asyncio.sleep(0)
    assert plane.told() == [(str(address_of(first)), "up", 1)]
    changed = plane.change(serve, second)
    assert plane.told() == [(str(address_of(first)), "removed", 1)]
    plane.change(changed, second, settings=LEAVES)
    plane.timers.tick()
    assert plane.is_reset(client)
    assert await retiring == 0


async def test_limits_that_come_while_one_retires_are_for_its_connections_too(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    client, _ = plane.pair(serve, backend)
    retiring = asyncio.ensure_future(plane.plane.drain(None))
    await asyncio.sleep(0)
    plane.change(serve, backend, settings=AGES)
    plane.timers.tick()
    assert plane.is_reset(client)
    assert await retiring == 0


async def test_what_one_that_retires_has_seen_of_backends_counts_no_more(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    plane.pair(serve, backend)
    service = plane.plane.services[PoolName.of(WEB)]
    for _ in range(service.pool.settings.check.fall):
        service.take_check(service.backends[0], "connection refused", 0.1)
    assert plane.told() == [(str(address_of(backend)), "down", 1)]
    retiring = asyncio.ensure_future(plane.plane.drain(None))
    await asyncio.sleep(0)
    assert plane.told() == [(str(address_of(backend)), "up", 1)], "nobody here will learn that it is back"
    plane.plane.end_drain()
    await retiring


async def test_a_drain_resets_whoever_is_left_when_its_time_is_over(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    ends = [end for _ in range(2) for end in plane.pair(serve, backend)]
    assert await plane.plane.drain(0) == 2
    assert all(plane.is_reset(end) for end in ends)
    assert plane.plane.counters.connections_ended == {"shutdown": 2}


@pytest.mark.parametrize("early", [True, False])
async def test_a_drain_in_a_hurry_waits_for_nobody(plane: Plane, early: bool) -> None:
    backend = plane.backend()
    client, _ = plane.pair(plane.serve(backend), backend)
    if early:
        plane.plane.end_drain()
    draining = asyncio.ensure_future(plane.plane.drain(3600))
    await asyncio.sleep(0)
    plane.plane.end_drain()
    assert await draining == 1
    assert plane.is_reset(client)


async def test_a_drain_without_connections_is_over_at_once(plane: Plane) -> None:
    plane.serve(plane.backend())
    assert await plane.plane.drain(None) == 0


def test_a_connection_ends_at_its_age(plane: Plane) -> None:
    backend = plane.backend()
    client, there = plane.pair(plane.serve(backend, settings=AGES), backend)
    plane.timers.tick()
    assert plane.is_reset(client)
    assert plane.is_reset(there)
    assert plane.plane.counters.connections_ended == {"aged": 1}


def test_connections_end_with_their_pod_where_the_service_asks_for_it(plane: Plane) -> None:
    first, second = plane.backend(), plane.backend()
    serve = plane.serve(first, settings=LEAVES)
    client, there = plane.pair(serve, first)
    plane.timers.tick()
    assert plane.relays(client, there)
    plane.change(serve, second)
    plane.timers.tick()
    assert plane.is_reset(client)
    assert plane.plane.counters.connections_ended == {"backend-removed": 1}


def test_connections_of_a_deleted_service_end_where_it_asked_for_it(plane: Plane) -> None:
    backend = plane.backend()
    client, _ = plane.pair(plane.serve(backend, settings=LEAVES), backend)
    plane.plane.close([PoolName.of(WEB)])
    plane.timers.tick()
    assert plane.is_reset(client)


def test_a_connection_of_a_former_listener_ends_with_its_pod_too(plane: Plane) -> None:
    first, second = plane.backend(), plane.backend()
    client, there = plane.pair(plane.serve(first, settings=LEAVES), first)
    plane.plane.close([PoolName.of(WEB)])
    serve = plane.serve(first, second, settings=LEAVES)
    plane.timers.tick()
    assert plane.relays(client, there), "its pod is back"
    plane.change(serve, second)
    plane.timers.tick()
    assert plane.is_reset(client)


def test_counters_are_of_the_whole_plane_and_outlive_services(plane: Plane) -> None:
    backend = plane.backend()
    for name in (WEB, CART):
        serve = plane.serve(backend, name=name)
        plane.finish(*plane.pair(serve, backend))
        plane.plane.close([PoolName.of(name)])
    plane.connect(plane.serve())
    plane.until(lambda: plane.plane.counters.connections_opened == 3)
    totals = plane.plane.totals(7)
    assert (totals.serial, totals.connections, totals.paused) == (7, 0, "")
    assert totals.counters.connections_ended.pop("no-backend") == 1
    assert sum(totals.counters.connections_ended.values()) == 2


def test_it_says_once_that_clients_were_pinned_and_whoever_listens_hears_of_each(plane: Plane) -> None:
    calls: list[None] = []
    plane.plane.news.on_pins = lambda: calls.append(None)
    backend = plane.backend()
    web, cart = (plane.serve(backend, name=name, affinity=60.0) for name in (WEB, CART))
    plane.pair(plane.serve(backend, name=ServicePortName("default", "other")), backend)
    assert calls == [], "where clients may go anywhere there is nothing to say"
    for serve in (web, cart, web):
        plane.pair(serve, backend)
    assert len(calls) == 1
    told = {part.pool: [pin.client for pin in part.pins] for part in plane.plane.news.fresh_pins()}
    assert told == {web.name: ["127.0.0.1"], cart.name: ["127.0.0.1"]}
    plane.pair(web, backend)
    assert len(calls) == 1, "it is no news"
    assert plane.plane.news.fresh_pins() == []


def test_others_are_told_of_backends_that_are_down_and_of_those_that_are_back(plane: Plane) -> None:
    told: list[tuple[PoolName, tuple[Address, ...]]] = []
    plane.plane.news.on_outage = lambda part: told.append((part.pool, part.backends))
    one, other = plane.backend(), plane.backend()
    serve = plane.serve(one, other)
    service = plane.plane.services[serve.name]
    live = service.backends[0]
    for failure in ("refused", "refused", "refused", "", ""):
        service.take_check(live, failure, 0.0)
    assert told == [(serve.name, (address_of(one),)), (serve.name, ())]
    for _ in range(3):
        service.take_check(live, "refused", 0.0)
    plane.change(serve, other)
    assert told[2:] == [(serve.name, (address_of(one),)), (serve.name, ())], "the pod at its address is gone"
    plane.change(serve, one, other)
    for _ in range(3):
        service.take_check(service.backends[0], "refused", 0.0)
    plane.plane.close([serve.name])
    assert told[4:] == [(serve.name, (address_of(one),)), (serve.name, ())]
