"""A relay and a proxy in memory, on real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.tests.dataplane.rig.proxy import Proxy
from userproxy.tests.dataplane.rig.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets


@pytest.fixture(autouse=True)
def _quiet(quiet: None) -> None:
    """What the data plane says of bugs that a test has put there is not shown."""


@pytest.fixture
def relay(sockets: Sockets, max_pipes: int) -> Iterator[Relay]:
    relay = Relay(sockets, max_pipes)
    yield relay
    relay.close()
    assert relay.pipes.lent == 0
    relay.pipes.close()


@pytest.fixture
def tcp_relay(sockets: Sockets, max_pipes: int) -> Iterator[Relay]:
    relay = Relay(sockets, max_pipes, tcp=True)
    yield relay
    relay.close()
    assert relay.pipes.lent == 0
    relay.pipes.close()


@pytest.fixture
def proxy(sockets: Sockets) -> Iterator[Proxy]:
    proxy = Proxy(sockets)
    yield proxy
    for connection in list(proxy.table.live.values()):
        connection.end(Event.KILLED)
    assert proxy.nothing_is_left()
    proxy.pipes.close()
