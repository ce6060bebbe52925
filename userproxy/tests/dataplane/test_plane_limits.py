"""Who has to wait, and who is turned away, when there are as many connections as there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.model.service import PoolName
from userproxy.model.settings import Settings
from userproxy.tests.dataplane.rig.plane import CART, NOT_CHECKED, WEB, Plane, files_left, readable
from userproxy.tests.dataplane.rig.proxy import reset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets


def at_most(connections: int | None = None, *, per_client: int | None = None) -> Settings:
    """What the author of a Service may choose."""
    return Settings(check=NOT_CHECKED, max_connections=connections, max_connections_per_client=per_client)


@pytest.fixture
def plane(sockets: Sockets) -> Iterator[Plane]:
    made = Plane(sockets, max_connections=3)
    yield made
    made.shut()


def test_over_a_service_s_limit_clients_wait_until_one_ends(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend, settings=at_most(1))
    first = plane.pair(serve, backend)
    second = plane.connect(serve)
    plane.settle()
    assert not readable(backend)
    plane.finish(*first)
    assert plane.relays(second, plane.taken(backend))


def test_a_former_listener_lets_nobody_in_over_the_limit(plane: Plane) -> None:
    backend = plane.backend()
    before = plane.serve(backend, settings=at_most(1))
    after = plane.serve(backend, settings=at_most(1))
    first = plane.pair(after, backend)
    waiting = [plane.connect(before) for _ in range(2)]
    plane.settle()
    assert not readable(backend)
    plane.finish(*first)
    assert plane.relays(waiting[0], plane.taken(backend))
    plane.settle()
    assert not readable(backend)


def test_a_service_at_its_limit_is_nothing_to_another(plane: Plane) -> None:
    backend = plane.backend()
    full, other = plane.serve(backend, settings=at_most(1)), plane.serve(backend, name=CART)
    plane.pair(full, backend)
    plane.connect(full)
    assert plane.relays(*plane.pair(other, backend))
    assert plane.plane.paused == ""


@pytest.mark.parametrize("settings", [at_most(2), at_most()])
def test_a_limit_that_is_raised_or_taken_away_lets_those_in_who_wait(
    plane: Plane, settings: Settings
) -> None:
    backend = plane.backend()
    serve = plane.serve(backend, settings=at_most(1))
    plane.pair(serve, backend)
    waiting = plane.connect(serve)
    plane.settle()
    plane.change(serve, backend, settings=settings)
    assert plane.relays(waiting, plane.taken(backend))


def test_a_limit_that_is_lowered_ends_nobody_and_lets_nobody_in(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    pairs = [plane.pair(serve, backend) for _ in range(2)]
    plane.change(serve, backend, settings=at_most(1))
    waiting = plane.connect(serve)
    plane.settle()
    assert all(plane.relays(*pair) for pair in pairs)
    plane.finish(*pairs.pop())
    plane.settle()
    assert not readable(backend)
    plane.finish(*pairs.pop())
    assert plane.relays(waiting, plane.taken(backend))


def test_the_end_of_a_former_listener_s_connection_lets_nobody_in_over_the_limit(plane: Plane) -> None:
    backend = plane.backend()
    former = plane.pair(plane.serve(backend, settings=at_most(1)), backend)
    plane.plane.close([PoolName.of(WEB)])
    serve = plane.serve(backend, settings=at_most(1))
    plane.pair(serve, backend)
    plane.connect(serve)
    plane.finish(*former)
    plane.settle()
    assert not readable(backend)


@pytest.mark.parametrize(("place", "share"), [((0, 2), 2), ((1, 2), 1)])
def test_each_worker_has_its_part_of_a_service_s_limit(
    sockets: Sockets, place: tuple[int, int], share: int
) -> None:
    plane = Plane(sockets, place=place)
    backend = plane.backend()
    serve = plane.serve(backend, settings=at_most(3))
    for _ in range(3):
        plane.connect(serve)
    plane.settle()
    assert len(plane.plane.connections.live) == share
    plane.shut()


def test_one_more_connection_of_the_same_client_is_reset_and_counted(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend, settings=at_most(per_client=1))
    first = plane.pair(serve, backend)
    assert plane.is_reset(plane.connect(serve))
    assert plane.plane.counters.clients_turned_away == 1
    assert plane.plane.counters.connections_opened == 2
    assert plane.plane.counters.connections_ended == {"too-many": 1}
    plane.finish(*first)
    assert plane.relays(*plane.pair(serve, backend))


def test_over_the_plane_s_limit_accepting_waits_for_all_and_says_why(plane: Plane) -> None:
    backend = plane.backend()
    web, cart = plane.serve(backend), plane.serve(backend, name=CART)
    pairs = [plane.pair(web, backend) for _ in range(3)]
    assert plane.plane.totals().paused == "as many connections as the limit allows"
    assert plane.plane.counters.accept_pauses == {"limit": 1}
    waiting = plane.connect(cart)
    plane.settle()
    assert not readable(backend)
    assert plane.relays(*pairs[0])
    plane.finish(*pairs.pop())
    assert plane.relays(waiting, plane.taken(backend))


def test_before_it_is_full_it_says_so_and_those_in_its_queues_are_served(sockets: Sockets) -> None:
    plane = Plane(sockets, max_connections=32)
    told: list[bool] = []
    plane.plane.heed_pressure(told.append)
    backend = plane.backend(backlog=64)
    serve = plane.serve(backend)
    pairs = [plane.pair(serve, backend) for _ in range(29)]
    assert told == []
    pairs += [plane.pair(serve, backend) for _ in range(2)]
    assert told == [True]
    totals = plane.plane.totals()
    assert (totals.paused, totals.full) == ("", "nearly as many connections as the limit allows")
    pairs.append(plane.pair(serve, backend))
    assert plane.plane.paused == "as many connections as the limit allows"
    for _ in range(2):
        plane.finish(*pairs.pop())
    assert (told, plane.plane.paused) == ([True], "")
    plane.finish(*pairs.pop())
    assert told == [True, False]
    plane.shut()


def test_out_of_file_descriptors_those_who_have_come_get_the_spare_ones(sockets: Sockets) -> None:
    plane = Plane(sockets, max_connections=32)
    told: list[bool] = []
    plane.plane.heed_pressure(told.append)
    backend = plane.backend()
    serve = plane.serve(backend)
    clients = [plane.connect(serve) for _ in range(2)]
    with files_left(0):
        plane.until(lambda: len(plane.plane.connections.live) == 2)
        assert told == [True]
        plane.timers.tick()
        assert told == [True], "there are no spare ones for the next"
    theirs = [plane.taken(backend) for _ in clients]
    assert all(plane.relays(*pair) for pair in zip(clients, theirs, strict=True))
    plane.timers.tick()
    assert told == [True, False]
    plane.shut()


def test_out_of_file_descriptors_clients_wait_and_are_served_when_there_are_some(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    old = plane.pair(serve, backend)
    waiting = plane.connect(serve)
    with files_left(0):
        plane.until(lambda: plane.plane.paused)
        assert plane.plane.paused == "[Errno 24] Too many open files"
        assert plane.plane.counters.accept_pauses["resources"] >= 1
        assert plane.relays(*old)
        plane.timers.tick()
        plane.until(lambda: plane.plane.paused)
    plane.timers.tick()
    assert plane.plane.paused == ""
    assert plane.relays(waiting, plane.taken(backend))


def test_a_client_that_is_let_in_with_the_last_file_descriptor_is_served_first_later_on(
    plane: Plane,
) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    first, second = plane.connect(serve), plane.connect(serve)
    with files_left(1):
        plane.until(lambda: plane.plane.paused)
        assert len(plane.plane.connections.live) == 1
    plane.timers.tick()
    assert plane.relays(first, plane.taken(backend))
    assert plane.relays(second, plane.taken(backend))


def test_a_starved_client_that_gives_up_is_forgotten(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend)
    client = plane.connect(serve)
    with files_left(1):
        plane.until(lambda: plane.plane.paused)
    reset(client)
    plane.timers.tick()
    plane.until(lambda: not plane.plane.connections.live)
    assert plane.plane.report() == []
