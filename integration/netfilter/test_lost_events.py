"""When conntrack has told more than could be read, what lives is counted all the same, and so limits hold."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from integration.netfilter.node import OUTSIDE_IP, SERVER1, VIP
from integration.sockets import inside_namespace
from userproxy.dataplane.steered.words import Say
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.flow_key import flow_key
from userproxy.model.service import Protocol
from userproxy.model.settings import Settings
from userproxy.model.state import Frontend, ToPods
from userproxy.netfilter.conntrack.events import EventSocket
from userproxy.tests.dataplane.steered.bench import Bench
from userproxy.worker.steering import hearing as module
from userproxy.worker.steering.hearing import Hearing

if TYPE_CHECKING:
    import pytest

    from integration.netfilter.node import Node
    from userproxy.netfilter.nftables import Nftables


MOST, ENDED, FIRST_PORT = 60, 40, 41_000
LITTLE_ROOM = 4096
"""Of the socket's buffer, in bytes: some of the messages, and no more."""

SOON_SECONDS = 3.0


def opened(node: Node, bench: Bench, stack: contextlib.ExitStack) -> list[socket.socket]:
    """As many connections as may live, for each of which a pod was chosen."""
    clients = []
    for port in range(FIRST_PORT, FIRST_PORT + MOST):
        assert bench.first(flow_key(Protocol.TCP, Address(OUTSIDE_IP, port), VIP)) == 0
        with inside_namespace(node.names["outside"]):
            client = stack.enter_context(socket.create_connection((VIP.ip, VIP.port), 5, (OUTSIDE_IP, port)))
        assert client.recv(100)
        clients.append(client)
    return clients


def test_those_whose_beginning_and_end_were_lost_are_counted_no_more(
    node: Node, nftables: Nftables, monkeypatch: pytest.MonkeyPatch
) -> None:
    nftables.apply(CaptureChange(put={Frontend(Protocol.TCP, VIP): ToPods((SERVER1,))}))
    monkeypatch.setattr(module, "EventSocket", lambda: EventSocket(LITTLE_ROOM))
    bench = Bench(0, Settings(max_connections=MOST))
    bench.update([1])

    async def heard(stack: contextlib.ExitStack) -> int:
        as_it_is = asyncio.Event()

        def changed() -> None:
            if bench.service.connections == MOST - ENDED:
                as_it_is.set()

        hearing = Hearing(asyncio.get_running_loop(), bench.decision, changed)
        try:
            clients = opened(node, bench, stack)  # nobody reads meanwhile
            one_more = flow_key(Protocol.TCP, Address(OUTSIDE_IP, FIRST_PORT + MOST), VIP)
            assert bench.first(one_more) == Say.REFUSE
            for client in clients[:ENDED]:
                client.close()
            bench.now += 1
            async with asyncio.timeout(SOON_SECONDS):
                await as_it_is.wait()
            await asyncio.sleep(0.5)  # it stays so
            return bench.service.connections
        finally:
            hearing.close()

    with node.serving("server1", SERVER1, "server1"), contextlib.ExitStack() as stack, node.inside("host"):
        assert asyncio.run(heard(stack)) == MOST - ENDED
