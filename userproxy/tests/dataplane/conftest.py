"""Sockets that every test gives back: what is open after it is what was open before."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.dataplane.tcp.flow import Event
from userproxy.tests.dataplane.rig.proxy import Proxy
from userproxy.tests.dataplane.rig.relay import Relay
from userproxy.tests.dataplane.rig.sockets import Sockets, open_fds

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():  # what it says of bugs that a test has put there
        yield


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    before = open_fds()
    with ExitStack() as stack:
        yield Sockets(stack)
    assert open_fds() == before


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
