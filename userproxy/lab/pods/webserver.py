"""The HTTP server in the lab's pods: `python -m userproxy.lab.pods.webserver server1 8080`.

| request            | answer                                                                       |
|--------------------|------------------------------------------------------------------------------|
| `GET /`            | one line: who answers, and which address it was asked from                   |
| `GET /hold/SECONDS`| that line at once, and `done` after so many seconds: a connection held open  |
| `GET /bytes/N`     | N bytes                                                                      |
| `POST /echo`       | the body, as it comes in                                                     |
| `POST /upload`     | how many bytes came in, and their SHA-256                                    |
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web

from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK = bytes(range(256)) * 256
_NAME = web.AppKey("name", str)


def application(name: str) -> web.Application:
    """The server of the pod of that name."""
    app = web.Application()
    app[_NAME] = name
    app.router.add_get("/", _answer)
    app.router.add_get(r"/hold/{seconds:\d+(\.\d+)?}", _hold)
    app.router.add_get(r"/bytes/{count:\d+}", _bytes)
    app.router.add_post("/echo", _echo)
    app.router.add_post("/upload", _upload)
    return app


def greeting(name: str, peer: Sequence[Any]) -> str:
    """The line that tells who answered, and where from it was asked."""
    return f"{name} answers {Address(peer[0], peer[1])}\n"


def _greeting(request: web.Request) -> str:
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport else None
    return greeting(request.app[_NAME], peer or ("a client that has left", 0))


async def _answer(request: web.Request) -> web.Response:
    return web.Response(text=_greeting(request))


async def _hold(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    await response.write(_greeting(request).encode())
    await asyncio.sleep(float(request.match_info["seconds"]))
    await response.write(b"done\n")
    return response


async def _bytes(request: web.Request) -> web.StreamResponse:
    left = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = left
    await response.prepare(request)
    while left:
        chunk = _CHUNK[:left]
        await response.write(chunk)
        left -= len(chunk)
    return response


async def _echo(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    async for chunk in request.content.iter_any():
        await response.write(chunk)
    return response


async def _upload(request: web.Request) -> web.Response:
    size, digest = 0, hashlib.sha256()
    async for chunk in request.content.iter_any():
        size += len(chunk)
        digest.update(chunk)
    return web.Response(text=f"{size} {digest.hexdigest()}\n")


async def serve(name: str, port: int) -> None:
    """Serve on every address until SIGTERM or SIGINT, and then stop without waiting for anybody."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    runner = web.AppRunner(application(name), access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, port=port, backlog=4096).start()
    await stopped.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
