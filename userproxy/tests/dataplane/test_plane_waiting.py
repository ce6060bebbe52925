"""Clients that wait for endpoints, while what is served changes and workers come and go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from userproxy.model.service import PoolName
from userproxy.model.settings import NoEndpoints, Settings
from userproxy.tests.dataplane.rig.plane import NOT_CHECKED, WEB, Plane

if TYPE_CHECKING:
    import socket as net
    from collections.abc import Iterator

    from userproxy.model.state import Serve
    from userproxy.tests.sockets import Sockets

HELD = Settings(check=NOT_CHECKED, no_endpoints=NoEndpoints.HOLD)


@pytest.fixture
def plane(sockets: Sockets) -> Iterator[Plane]:
    made = Plane(sockets)
    yield made
    made.shut()


def waiting(plane: Plane, serve: Serve) -> net.socket:
    """A client that waits."""
    before = plane.plane.totals().waiting
    client = plane.connect(serve)
    plane.until(lambda: plane.plane.totals().waiting > before)
    return client


def test_whoever_waits_is_counted_and_served_once_the_plane_is_told_of_a_backend(plane: Plane) -> None:
    serve = plane.serve(settings=HELD)
    client, backend = waiting(plane, serve), plane.backend()
    assert (plane.plane.totals().waiting, plane.plane.totals().connections) == (1, 1)
    plane.change(serve, backend)
    assert plane.relays(client, plane.taken(backend))
    assert plane.plane.totals().waiting == 0
    assert plane.plane.totals().counters.clients_held == 1


def test_it_is_said_who_needs_pods(plane: Plane) -> None:
    needed: list[PoolName] = []
    plane.plane.need_pods = needed.append
    waiting(plane, plane.serve(settings=HELD))
    assert needed == [PoolName.of(WEB)]


def test_when_the_service_is_deleted_whoever_waits_is_reset(plane: Plane) -> None:
    serve = plane.serve(settings=HELD)
    client = waiting(plane, serve)
    plane.plane.close([serve.name])
    assert plane.is_reset(client)


async def test_whoever_waits_at_a_worker_that_retires_is_served_all_the_same(plane: Plane) -> None:
    serve = plane.serve(settings=HELD)
    client, backend = waiting(plane, serve), plane.backend()
    retiring = asyncio.ensure_future(plane.plane.drain(None))
    await asyncio.sleep(0)
    plane.change(serve, backend)
    there = plane.taken(backend)
    assert plane.relays(client, there)
    plane.finish(client, there)
    assert await retiring == 0


async def test_when_the_daemon_stops_whoever_waits_is_reset_at_once(plane: Plane) -> None:
    backend = plane.backend()
    serve = plane.serve(backend, settings=HELD)
    client, there = plane.pair(serve, backend)
    plane.change(serve)
    held = waiting(plane, serve)
    draining = asyncio.ensure_future(plane.plane.drain(3600))
    await asyncio.sleep(0)
    assert plane.is_reset(held)
    assert plane.relays(client, there)
    plane.finish(client, there)
    assert await draining == 1
