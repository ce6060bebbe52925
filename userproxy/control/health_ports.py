"""Answers load balancers that ask whether this node has endpoints of a Service (`healthCheckNodePort`).

An HTTP server for each such Service, for as long as it has the port.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from userproxy.model.address import Address
from userproxy.model.snapshot import Problem
from userproxy.ops.http.server import application, serve_http
from userproxy.planner.local_endpoints import LocalEndpointCounter

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Mapping

    from userproxy.model.snapshot import Node, Snapshot
    from userproxy.planner.local_endpoints import LocalEndpoints

FLAG = "healthCheckNodePort "
"""How the names of their listening sockets begin; the address follows."""


class HealthPorts:
    """The servers. Lives as long as the daemon."""

    def __init__(self) -> None:
        self._counter = LocalEndpointCounter()
        self._counts: Mapping[int, LocalEndpoints] = {}
        self._wanted: frozenset[Address] | None = None  # nobody has said yet
        self._changed = asyncio.Event()
        self._healthy: Callable[[], bool] = lambda: False
        self._listeners: dict[str, socket.socket] = {}
        self._on_failure: Callable[[], None] = lambda: None
        self._failures: dict[Address, str] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """A problem for each port that cannot be listened on, or that two Services have."""
        failures = (
            Problem(
                f"{counts.namespace}/{counts.service}",
                "FailedToStartServiceHealthcheck",
                f"cannot answer load balancers at {address}: {error}; what else has that port on this node?",
            )
            for address, error in sorted(self._failures.items())
            if (counts := self._counts.get(address.port)) is not None
        )
        return (*failures, *self._counter.conflicts)

    def observe(self, snapshot: Snapshot, node: Node, addresses: tuple[str, ...]) -> None:
        """Take in the desired state.

        Args:
            snapshot: with the Services and their endpoints.
            node: whose endpoints count.
            addresses: of this node, to listen on.
        """
        self._counts = self._counter.observe(snapshot, node)
        wanted = frozenset(Address(ip, port) for port in self._counts for ip in addresses)
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(
        self,
        healthy: Callable[[], bool],
        listeners: dict[str, socket.socket],
        on_failure: Callable[[], None],
    ) -> None:
        """Serve until cancelled.

        Args:
            healthy: tells whether this daemon does its work.
            listeners: by name, listening sockets: those of an earlier daemon are used, new ones added.
            on_failure: called when `problems` has changed.
        """
        self._healthy, self._listeners, self._on_failure = healthy, listeners, on_failure
        tasks: dict[Address, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                wanted = self._wanted or frozenset()
                for address in tasks.keys() - wanted:
                    tasks.pop(address).cancel()
                    self._failures.pop(address, None)
                for address in wanted - tasks.keys():
                    tasks[address] = group.create_task(self._serve(address))
                self._close_unwanted(wanted)

    async def _serve(self, address: Address) -> None:
        async def answer(_request: web.Request) -> web.Response:
            return self._answer(address)

        def report(error: str) -> None:
            before = self._failures.pop(address, "")
            if error:
                self._failures[address] = error
            if error != before:
                self._on_failure()

        name = f"{FLAG}{address}"
        await serve_http(address, application({"/{path:.*}": answer}), name, self._listeners, report=report)

    def _close_unwanted(self, wanted: Collection[Address]) -> None:
        names = {f"{FLAG}{address}" for address in wanted}
        for name in [name for name in self._listeners if name.startswith(FLAG) and name not in names]:
            self._listeners.pop(name).close()

    def _answer(self, asked: Address) -> web.Response:
        """A load balancer of a family asks at an address of it, and for endpoints of it."""
        counts = self._counts.get(asked.port)
        if counts is None:
            raise web.HTTPNotFound
        healthy, local = self._healthy(), counts.local.get(asked.family, 0)
        return web.json_response(
            {
                "service": {"namespace": counts.namespace, "name": counts.service},
                "localEndpoints": local,
                "serviceProxyHealthy": healthy,
            },
            status=200 if local and healthy else 503,
            headers={"X-Load-Balancing-Endpoint-Weight": str(local)},
        )
