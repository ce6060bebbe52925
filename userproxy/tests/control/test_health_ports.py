"""What load balancers are answered, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from userproxy.control.health_ports import FLAG, HealthPorts
from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Protocol, ServicePort, ServicePortName
from userproxy.model.snapshot import EMPTY, Node, Snapshot
from userproxy.tests.services import cluster_ips

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HERE = Node("host1")
WEB = ServicePortName("default", "web")
LOOPBACK = ("127.0.0.1", "::1")


class Balancer:
    """A load balancer that asks, and the daemon that answers.

    Attributes:
        ports: that answer.
        port: at which it asks.
        healthy: whether the daemon does its work.
        listeners: its listening sockets.
        told: is set when a problem comes or goes.
    """

    def __init__(self, port: int) -> None:
        self.ports = HealthPorts()
        self.port = port
        self.healthy = True
        self.listeners: dict[str, socket.socket] = {}
        self.told = asyncio.Event()

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """The daemon serves for the time of the block."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.ports.run(lambda: self.healthy, self.listeners, self.told.set))
            yield
            task.cancel()
        for listener in self.listeners.values():
            listener.close()

    def observe(self, *nodes: str) -> None:
        """There are pods on these nodes."""
        service = ServicePort(
            name=WEB,
            protocol=Protocol.TCP,
            entries=cluster_ips(Address("10.3.0.1", 80)),
            health_check_port=self.port,
        )
        pods = tuple(
            Endpoint(address=Address(f"10.0.1.{number}", 8080), node=node)
            for number, node in enumerate(nodes, start=2)
        )
        self.ports.observe(Snapshot({WEB: service}, {WEB: pods}), HERE, LOOPBACK)

    async def ask(self, host: str = "127.0.0.1") -> tuple[int, dict[str, object], str]:
        """The status, the answer, and the weight."""
        async with aiohttp.ClientSession() as session:
            url = f"http://{host}:{self.port}/any/path"
            async with session.get(url) as response:
                weight = response.headers["X-Load-Balancing-Endpoint-Weight"]
                return response.status, json.loads(await response.text()), weight


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - sockets tell by themselves
            await asyncio.sleep(0)


@pytest.fixture
def balancer() -> Balancer:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Balancer(probe.getsockname()[1])


def is_open(balancer: Balancer) -> bool:
    return f"{FLAG}127.0.0.1:{balancer.port}" in balancer.listeners


async def test_at_an_address_of_a_family_pods_of_it_are_counted(balancer: Balancer) -> None:
    async with balancer.asking():
        balancer.observe("host1", "host1")
        await until(lambda: len(balancer.listeners) == 2)
        assert [(await balancer.ask(host))[::2] for host in ("127.0.0.1", "[::1]")] == [
            (200, "2"),
            (503, "0"),
        ]


async def test_the_answer_is_how_many_pods_are_here(balancer: Balancer) -> None:
    async with balancer.asking():
        balancer.observe("host1", "host1", "host2")
        await until(lambda: is_open(balancer))
        said = {"service": {"namespace": "default", "name": "web"}, "localEndpoints": 2}
        assert await balancer.ask() == (200, said | {"serviceProxyHealthy": True}, "2")
        balancer.healthy = False
        assert await balancer.ask() == (503, said | {"serviceProxyHealthy": False}, "2")
        balancer.healthy = True
        balancer.observe("host2")
        assert (await balancer.ask())[::2] == (503, "0")


async def test_a_service_that_is_gone_is_not_answered_for(balancer: Balancer) -> None:
    async with balancer.asking():
        balancer.observe("host1")
        await until(lambda: is_open(balancer))
        balancer.ports.observe(EMPTY, HERE, LOOPBACK)
        await until(lambda: not is_open(balancer))
        with pytest.raises(aiohttp.ClientConnectionError):
            await balancer.ask()


async def test_what_an_earlier_daemon_listened_on_is_used_or_closed(balancer: Balancer) -> None:
    used, unused = (socket.create_server(("127.0.0.1", port)) for port in (balancer.port, 0))
    balancer.listeners = {f"{FLAG}127.0.0.1:{balancer.port}": used, f"{FLAG}127.0.0.1:1": unused}
    async with balancer.asking():
        balancer.observe("host1")
        await until(lambda: unused.fileno() < 0)
        assert (await balancer.ask())[0] == 200
        assert used.fileno() >= 0


async def test_a_port_that_something_else_has_is_a_problem(balancer: Balancer) -> None:
    with socket.create_server(("127.0.0.1", balancer.port)):
        async with balancer.asking():
            balancer.observe("host1")
            async with asyncio.timeout(20):
                await balancer.told.wait()
            (problem,) = balancer.ports.problems
            assert (problem.about, problem.reason) == ("default/web", "FailedToStartServiceHealthcheck")
            assert f"127.0.0.1:{balancer.port}: Address already in use; what else" in problem.message
            balancer.ports.observe(EMPTY, HERE, LOOPBACK)
            assert balancer.ports.problems == ()
