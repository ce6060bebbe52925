"""The two HTTP servers of the daemon: one for probes, open to the network, and one for metrics.

Neither is needed for serving: where an address is taken, it is tried again, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from userproxy.ops.http.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from userproxy.model.address import Address
    from userproxy.ops.http.health import Health
    from userproxy.ops.http.metrics import Figures, Metrics

log = structlog.get_logger("userproxy.http")

_EVERY_ADDRESS = "::"  # of IPv4 too
_RETRY_SECONDS = 5.0
_BACKLOG = 128

_CONNECTION_SECONDS = 10.0
"""No client needs longer: each gets one answer, and the connection is closed."""


class Pages:
    """What is answered.

    Args:
        health: tells how the daemon is.
        figures: tells what is counted elsewhere.
        metrics: are rendered.
        mode: what `/proxyMode` answers.
    """

    def __init__(
        self,
        health: Callable[[], Health],
        figures: Callable[[], Awaitable[Figures]],
        metrics: Metrics,
        mode: str,
    ) -> None:
        self._health = health
        self._figures = figures
        self._metrics = metrics
        self._mode = mode
        self._rendering = asyncio.Lock()

    def probes(self) -> web.Application:
        """For `--healthz-bind-address`."""
        return application({"/healthz": self._healthz, "/livez": self._livez})

    def metrics(self) -> web.Application:
        """For `--metrics-bind-address`."""
        return application(
            {"/metrics": self._scrape, "/healthz": self._healthz, "/proxyMode": self._proxy_mode}
        )

    async def _healthz(self, _request: web.Request) -> web.Response:
        health = self._health()
        return self._probe("healthz", health, healthy=health.healthy)

    async def _livez(self, _request: web.Request) -> web.Response:
        health = self._health()
        return self._probe("livez", health, healthy=health.alive)

    def _probe(self, path: str, health: Health, *, healthy: bool) -> web.Response:
        code = 200 if healthy else 503
        self._metrics.probed(path, code)
        return web.Response(
            status=code,
            body=health.body(healthy=healthy),
            content_type="application/json",
            headers={"X-Content-Type-Options": "nosniff"},
        )

    async def _scrape(self, _request: web.Request) -> web.Response:
        async with self._rendering:
            body = await asyncio.to_thread(self._metrics.render, await self._figures())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _proxy_mode(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._mode)


async def serve_http(
    address: Address | None,
    application: web.Application,
    flag: str,
    listeners: dict[str, socket.socket],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    report: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled.

    Args:
        address: to listen on; None serves nothing.
        application: what to serve.
        flag: that the address comes from.
        listeners: by flag, the listening sockets: one that is there is used, a new one is put there. It stays
            open, so that clients wait instead of being refused until somebody else serves them.
        sleep: waits so many seconds.
        report: told why it cannot listen, and once it can an empty text; by default the log is told.
    """
    if address is None:
        return
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        failures = report or _log_failures(address, flag)
        while (own := _opened(address, flag, listeners, failures)) is None:
            await sleep(_RETRY_SECONDS)
        await web.SockSite(runner, own).start()
        await _hang_up_on_the_idle(runner, sleep)
    finally:
        await runner.cleanup()


def _opened(
    address: Address, flag: str, listeners: dict[str, socket.socket], report: Callable[[str], None]
) -> socket.socket | None:
    """A descriptor of the listening socket, which is made if need be; None, and a report, if it cannot be."""
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    try:
        if flag not in listeners:
            listeners[flag] = socket.create_server(
                (address.ip, address.port),
                family=family,
                backlog=_BACKLOG,
                dualstack_ipv6=address.ip == _EVERY_ADDRESS,
            )
        own = listeners[flag].dup()
    except OSError as error:  # what Python adds repeats the address
        report(os.strerror(error.errno) if error.errno else str(error))
        return None
    report("")
    return own


def _log_failures(address: Address, flag: str) -> Callable[[str], None]:
    """Log the first failure to listen, and that it is over."""
    warned = False

    def report(error: str) -> None:
        nonlocal warned
        if error and not warned:
            log.warning(
                "cannot listen, and will try again", address=str(address), error=error, remedy=f"--{flag}"
            )
        elif not error and warned:
            log.info("listening after all", address=str(address))
        warned = bool(error)

    return report


async def _hang_up_on_the_idle(runner: web.AppRunner, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Close the connections of those who connect and then say nothing, lest they use up our descriptors."""
    before: set[Any] = set()
    while True:
        await sleep(_CONNECTION_SECONDS)
        connections = set(runner.server.connections) if runner.server else set()
        for connection in connections & before:
            connection.force_close()
            if connection.transport:
                connection.transport.abort()
        before = connections - before


def application(pages: dict[str, Callable[[web.Request], Awaitable[web.Response]]]) -> web.Application:
    """Answers GET on these paths, and hangs up after each answer."""
    application = web.Application(client_max_size=1024, middlewares=[_close_after])
    for path, page in pages.items():
        application.router.add_get(path, page)
    return application


@web.middleware
async def _close_after(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        refusal.force_close()
        raise
    response.force_close()
    return response
