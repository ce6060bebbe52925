"""What conntrack really tells of translated connections, and what it does not."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from integration.netfilter.node import SERVER1, SERVER2, VIP
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, ToPods
from userproxy.netfilter.conntrack.events import EventSocket, listed
from userproxy.netfilter.conntrack.heard import Told
from userproxy.tests.dataplane.steered.bench import Bench
from userproxy.worker.steering.hearing import Hearing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.netfilter.node import Node
    from userproxy.netfilter.conntrack.heard import Heard
    from userproxy.netfilter.nftables import Nftables

REFUSING = Address(VIP.ip, 81)
_SMALL_BUFFER = 4096
_PATIENCE = 5.0


@pytest.fixture
def served(node: Node, nftables: Nftables) -> Iterator[Node]:
    """A Service with one pod, and one whose pod refuses."""
    put = {VIP: ToPods((SERVER1,)), REFUSING: ToPods((SERVER2,))}
    nftables.apply(CaptureChange(put={Frontend(Protocol.TCP, at): to for at, to in put.items()}))
    with node.serving("server1", SERVER1, "server1"):
        yield node


@contextlib.contextmanager
def hearing(node: Node, **options: int) -> Iterator[EventSocket]:
    """A socket in the host that is told."""
    with node.inside("host"):
        made = EventSocket(**options)
    with contextlib.closing(made):
        yield made


@contextlib.contextmanager
def unheard(node: Node) -> Iterator[None]:
    """What begins meanwhile is as what begins while nobody on the whole machine listens."""
    node.run("host", "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
    yield
    node.run("host", "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")


def hear(events: EventSocket, count: int) -> list[Heard]:
    """Wait for so many events, and for those that come at the same moment."""
    found: list[Heard] = []
    ends = time.monotonic() + _PATIENCE
    while len(found) < count and time.monotonic() < ends:
        select.select([events], [], [], 0.1)
        found += events.read().events
    return found


def listed_on(node: Node) -> list[Heard]:
    """Those that live."""
    with node.inside("host"):
        return listed()


def reset(connection: socket.socket) -> None:
    """Close it so that the pod gets a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_connections_life_is_told_and_its_refusal(served: Node) -> None:
    with hearing(served) as events:
        assert served.ask("server2").startswith("server1 ")
        life = hear(events, 3)
        assert [each.told for each in life] == [Told.NEW, Told.ANSWERED, Told.OVER]
        assert {each.backend for each in life} == {SERVER1}
        assert len({each.flow for each in life}) == 1

        client = served.connect("server2")
        assert [each.flow for each in listed_on(served)] == [hear(events, 2)[0].flow]
        reset(client)
        assert [each.told for each in hear(events, 1)] == [Told.OVER]

        with pytest.raises(ConnectionRefusedError):
            served.connect("server1", REFUSING)
        assert [(each.told, each.backend) for each in hear(events, 2)] == [
            (Told.NEW, SERVER2),
            (Told.FAILED, SERVER2),
        ]
        assert not listed_on(served)


def test_what_is_lost_is_said_and_the_list_has_it(served: Node) -> None:
    clients = []
    with contextlib.ExitStack() as stack, hearing(served, buffer_bytes=_SMALL_BUFFER) as events:
        clients = [stack.enter_context(served.connect("server2")) for _ in range(20)]
        batch = events.read()
        assert batch.lost
        assert len(batch.events) < 2 * len(clients)
        assert len(listed_on(served)) == len(clients)
        # From now on all is told again.
        reset(clients[0])
        assert [each.told for each in hear(events, 1)] == [Told.OVER]
        assert len(listed_on(served)) == len(clients) - 1


def test_the_end_of_what_began_while_nobody_listened_is_not_told(served: Node) -> None:
    with unheard(served):
        before = served.connect("server2")
    with hearing(served) as events:
        after = served.connect("server2")
        begun = hear(events, 2)
        assert len(listed_on(served)) == 2
        before.close()
        after.close()
        assert [each.flow for each in hear(events, 1)] == [begun[0].flow]
        assert not listed_on(served)


async def test_a_steering_process_sees_that_such_a_connection_is_over_all_the_same(served: Node) -> None:
    with unheard(served):
        before = served.connect("server2")
    bench = Bench(2)
    with served.inside("host"):  # its thread too, which the first list starts
        hearing = Hearing(asyncio.get_running_loop(), bench.decision, lambda: None, again=0.05)
        hearing.begin()
    with contextlib.closing(hearing):
        await until(lambda: bench.service.connections == 1)
        before.close()
        await until(lambda: bench.service.connections == 0)


async def until(so: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(_PATIENCE):
        while not so():  # noqa: ASYNC110 - the counts tell nobody that they change
            await asyncio.sleep(0.01)
