"""Which connections end because their time is over, and which go on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from userproxy.backends.service import LiveService
from userproxy.dataplane.tcp.expiry import Lifetimes, spread, verdict
from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.model.address import Address
from userproxy.model.service import ServicePortName
from userproxy.model.settings import Settings
from userproxy.model.state import Backend, Serve
from userproxy.tests.sockets import Clock, VirtualTimers

if TYPE_CHECKING:
    from userproxy.dataplane.tcp.connection import Connection

POD = Backend(Address("10.0.1.2", 8080))


def serve(settings: Settings, *backends: Backend) -> Serve:
    return Serve(
        service=ServicePortName("default", "web"),
        listener=Address("10.100.0.2", 10400),
        backends=backends,
        settings=settings,
    )


class Scene:
    """A Service port with connections, and a clock that the test sets."""

    def __init__(self, settings: Settings) -> None:
        self.clock = Clock()
        self.timers = VirtualTimers()
        self.settings = settings
        self.service = LiveService(serve(settings, POD), clock=self.clock)
        self.live: dict[int, Connection] = {}
        self.ended: list[tuple[int, Event]] = []
        self.lifetimes = Lifetimes(self.timers.loop, self.live, self.clock)
        self.lifetimes.watch(self.service)

    def connect(self, number: int) -> Connection:
        """A connection that begins now."""
        backend = self.service.find(POD.address)
        assert backend is not None
        backend.connections += 1
        self.service.enter("10.9.9.9")

        def end(event: Event) -> None:
            self.ended.append((number, event))
            del self.live[number]

        made = SimpleNamespace(
            number=number, service=self.service, backend=backend, opened=self.clock.now, end=end
        )
        self.live[number] = cast("Connection", made)
        return self.live[number]


def test_a_connection_ends_at_its_age_give_or_take_a_tenth() -> None:
    scene = Scene(Settings(max_connection_age=100.0))
    connections = [scene.connect(number) for number in range(200)]
    ages = []
    for connection in connections:
        age = next(age for age in range(1000) if verdict(connection, scene.clock.now + age) is Event.AGED)
        ages.append(age)
    assert 90 <= min(ages) < 93
    assert 107 < max(ages) <= 111
    assert 99 < sum(ages) / len(ages) < 102


def test_after_a_removal_a_connection_has_its_time() -> None:
    scene = Scene(Settings(close_on_removal=5.0))
    scene.connect(1)
    scene.service.update(serve(scene.settings))
    scene.clock.now += 4.9
    scene.timers.tick()
    assert scene.ended == []
    scene.clock.now += 0.1
    scene.timers.tick()
    assert scene.ended == [(1, Event.BACKEND_REMOVED)]


def test_a_pod_that_comes_back_keeps_its_connections() -> None:
    scene = Scene(Settings(close_on_removal=5.0))
    scene.connect(1)
    scene.service.update(serve(scene.settings))
    scene.service.update(serve(scene.settings, POD))
    scene.clock.now += 60
    scene.timers.tick()
    assert scene.ended == []


def test_the_connections_of_a_service_that_goes_have_their_time_too() -> None:
    scene = Scene(Settings(close_on_removal=5.0))
    scene.connect(1)
    scene.service.retire()
    scene.clock.now += 5
    scene.timers.tick()
    assert scene.ended == [(1, Event.BACKEND_REMOVED)]


def test_by_default_connections_go_on_and_nobody_looks() -> None:
    scene = Scene(Settings())
    connection = scene.connect(1)
    scene.service.update(serve(scene.settings))
    assert verdict(connection, scene.clock.now + 1e9) is None
    assert scene.timers.delays == []


def test_a_large_table_is_looked_at_in_parts() -> None:
    scene = Scene(Settings(max_connection_age=1.0))
    for number in range(2500):
        scene.connect(number)
    scene.clock.now += 2.0
    counts = []
    for _ in range(3):
        scene.timers.tick()
        counts.append(len(scene.ended))
    assert counts == [1000, 2000, 2500]


def test_nobody_looks_once_the_last_such_service_is_gone() -> None:
    scene = Scene(Settings(max_connection_age=1.0))
    scene.timers.tick()
    assert scene.timers.delays
    scene.service.retire()
    scene.timers.tick()
    assert not scene.timers.delays


def test_ages_are_spread_over_the_whole_range() -> None:
    found = [spread(number) for number in range(1000)]
    assert min(found) == pytest.approx(-1.0, abs=0.01)
    assert max(found) == pytest.approx(1.0, abs=0.01)
