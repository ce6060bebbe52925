"""The two HTTP servers of the daemon: one for probes, open to the network, and one for metrics.

Neither is needed for serving: where an address is taken, it is tried again, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import structlog
from aiohttp import web

from userproxy import __version__
from userproxy.ops.http.clients import Clients, Handler, Limits, quiet_runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.address import Address

Page: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]

log = structlog.get_logger("userproxy.http")

_EVERY_ADDRESS = "::"  # of IPv4 too
_RETRY_SECONDS = 5.0
_BACKLOG = 128
_FINISH_SECONDS = 1.0  # for those accepted already: the others wait for the next server

_LIMITS = Limits(clients=128, body_bytes=1024)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
_CLIENTS = web.AppKey("clients", Clients)

_HEADERS = {
    "Server": f"userproxy/{__version__}",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
"""Of every answer: no page of somebody else may embed it or take it for what it is not."""


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
    runner = quiet_runner(application)
    await runner.setup()
    try:
        failures = report or _log_failures(address, flag)
        while (own := _opened(address, flag, listeners, failures)) is None:
            await sleep(_RETRY_SECONDS)
        assert runner.server is not None  # noqa: S101 - set up above
        clients = application[_CLIENTS]
        protocols = clients.protocols(runner.server)
        server = await asyncio.get_running_loop().create_server(protocols, sock=own, backlog=_BACKLOG)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await clients.finish(_FINISH_SECONDS)
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


def application(pages: Mapping[str, Page]) -> web.Application:
    """Answers GET on these paths, and hangs up after each answer."""
    clients = Clients(_LIMITS, _REFUSAL)
    middlewares = [_close_after, clients.attend]
    application = web.Application(client_max_size=_LIMITS.body_bytes, middlewares=middlewares)
    application[_CLIENTS] = clients
    for path, page in pages.items():
        application.router.add_get(path, page)
    return application


@web.middleware
async def _close_after(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        refusal.headers.update(_HEADERS)
        refusal.force_close()
        raise
    except ConnectionError:
        raise
    except Exception:
        log.exception("a page could not be made", path=request.path)
        response = web.Response(status=500, text="the daemon failed to answer: its log says why\n")
    response.headers.update(_HEADERS)
    response.force_close()
    return response
