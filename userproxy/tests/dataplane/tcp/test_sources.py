"""Connections from their client's address: for which dials, for how long, and what failures tell."""

from __future__ import annotations

import errno
import socket as net
from _socket import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.lifecycle import Event, State
from userproxy.dataplane.tcp.sources import Sources
from userproxy.model.address import Address
from userproxy.model.settings import Settings, SourceAddress

if TYPE_CHECKING:
    from userproxy.backends.service import LiveService
    from userproxy.tests.dataplane.rig.proxy import Proxy

KEPT = "192.0.2.7"
CLIENT = Settings(source_address=SourceAddress.CLIENT)


class Lender(Sources):
    """Lends an address to all, as the kernel would; no packet is sent.

    Attributes:
        said: what it was asked to lend and to take back, in order.
    """

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy.table.counters)
        self.said: list[str] = []

    def lend(self, client: str, service: LiveService, pod: Address) -> str:
        """Of `Sources`."""
        self.said.append(f"lend to {client} for {pod}")
        return KEPT if service.pool.settings.source_address is SourceAddress.CLIENT else ""

    def take_back(self, client: str) -> None:
        """Of `Sources`."""
        self.said.append(f"take {client} back")


@pytest.fixture
def lender(proxy: Proxy) -> tuple[Proxy, Lender]:
    lender = Lender(proxy)
    proxy.context = proxy.context._replace(dialling=proxy.context.dialling._replace(sources=lender))
    return proxy, lender


def lent(*backends: socket) -> list[str]:
    """What is said, in order, where these are dialled one after the other."""
    return [
        line
        for each in backends
        for line in (f"lend to 127.0.0.1 for {Address(*each.getsockname())}", f"take {KEPT} back")
    ]


def test_it_is_lent_for_each_dial_and_taken_back_before_anything_else_happens(
    lender: tuple[Proxy, Lender],
) -> None:
    proxy, sources = lender
    dead, alive = proxy.bound(), proxy.listening()
    proxy.serve(dead, alive, settings=CLIENT)
    connection, _ = proxy.accept()
    there = proxy.taken(alive)
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert sources.said == lent(dead, alive)
    assert connection.source == Address(KEPT, there.getpeername()[1])
    connection.end(Event.KILLED)
    assert proxy.nothing_is_left()


def test_a_service_that_does_not_ask_for_it_has_the_nodes(lender: tuple[Proxy, Lender]) -> None:
    proxy, sources = lender
    connection, _, there = proxy.established()
    assert connection.source == Address(*there.getpeername())
    assert not [line for line in sources.said if "back" in line]


def test_it_is_taken_back_also_if_a_dial_goes_wrong_as_none_ever_should(
    lender: tuple[Proxy, Lender], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(socket):
        def connect_ex(self, _address: object) -> int:
            raise RuntimeError("never")

    proxy, sources = lender
    monkeypatch.setattr("userproxy.dataplane.tcp.dial.dialling_socket", lambda _: Broken(net.AF_INET))
    backend = proxy.listening()
    proxy.serve(backend, settings=CLIENT)
    connection, _ = proxy.accept()
    assert connection.state is State.CLOSED
    assert sources.said == lent(backend)


def test_the_second_dial_beside_a_slow_one_has_it_too(lender: tuple[Proxy, Lender]) -> None:
    proxy, sources = lender
    slow, good = proxy.silent(), proxy.listening()
    settings = Settings(source_address=SourceAddress.CLIENT, hedged_dial=0.25)
    proxy.serve(slow, good, settings=settings)
    connection, _ = proxy.accept()
    proxy.clock.now += 0.25
    proxy.timers.tick()
    there = proxy.taken(good)
    assert proxy.reaches(connection, State.ESTABLISHED)
    assert connection.source == Address(KEPT, there.getpeername()[1])
    assert sources.said == lent(slow, good)
    connection.end(Event.KILLED)


@pytest.mark.parametrize(("settings", "state"), [(CLIENT, "up"), (Settings(), "ejected")])
def test_what_one_client_may_not_reach_is_not_down_but_is_checked(
    lender: tuple[Proxy, Lender], settings: Settings, state: str
) -> None:
    """Somebody else's policy may keep out that client alone."""
    proxy, _ = lender
    hastened: list[object] = []
    proxy.service.on_failure = lambda _service, live: hastened.append(live)
    proxy.serve(proxy.bound(), proxy.listening(), settings=settings)
    dead = proxy.service.backends[0]
    for _ in range(6):
        proxy.accept()
    assert dead.condition(proxy.clock.now).state == state
    assert dead in hastened
    assert dead.error == errno.ECONNREFUSED


def test_who_cannot_vouch_counts_the_nodes_address(proxy: Proxy) -> None:
    backend = proxy.listening()
    proxy.serve(backend, settings=CLIENT)
    connection, _ = proxy.accept()
    there = proxy.taken(backend)
    assert connection.source == Address(*there.getpeername())
    assert proxy.table.counters.backend_sources == {"node": 1}
    connection.end(Event.KILLED)
