"""Who is connected to one of our HTTP servers: how many, for how long, and what each may cost.

Nobody who connects is trusted to be quick, complete or sane, and none may make the daemon wait or use up its
descriptors and memory. aiohttp bounds the size of a request; what is bounded here is time and number, for
any server, by standing between its transports and its protocols.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import msgspec
import structlog
from aiohttp import web

_log = structlog.get_logger("userproxy.http")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_AHEAD_BYTES = 64 * 1024
"""How much a client may send beyond the request that is being answered."""

_ROUNDS = 3
"""Of the loop, until it has told a protocol of the connection that it has accepted."""


_silent = logging.getLogger("userproxy.http.silent")
_silent.disabled = True


def quiet_runner(application: web.Application) -> web.AppRunner:
    """Runs an application; what a client sends is not unpacked, and leaves no line in the log."""
    return web.AppRunner(
        application,
        access_log=None,
        auto_decompress=False,
        handle_signals=False,
        lingering_time=0.0,
        logger=_silent,  # aiohttp's own writes a traceback for each request that is none
        shutdown_timeout=1.0,
    )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client, and all of them together, may cost.

    Attributes:
        clients: at the same time. One more takes the place of whoever has been waited for the longest; where
            all are being answered, it is refused.
        request_seconds: to send a whole request, counted from connecting or from the last answer.
        write_seconds: to take what has been written of an answer.
        body_bytes: of a request, at most.
    """

    clients: int = 32
    request_seconds: float = 10.0
    write_seconds: float = 10.0
    body_bytes: int = 64 * 1024


class Clients:
    """Those of one server.

    Args:
        limits: that they are held to.
        refusal: the whole answer to one client too many.
    """

    def __init__(self, limits: Limits, refusal: bytes) -> None:
        self.limits = limits
        self.refusal = refusal
        self._connected: dict[object, _Client] = {}  # by transport, in the order of their last answer
        self._answering: set[asyncio.Task[object]] = set()
        self._refusing = False
        self._all_left = asyncio.Event()
        self._all_left.set()

    def protocols(self, server: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Makes a client's protocol, as `create_server` wants it, around one that speaks HTTP."""
        return lambda: _Client(self, server())

    @web.middleware
    async def attend(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Read a request, and have it answered: the time that its client has ends and begins here."""
        client, task = self._connected.get(request.transport), asyncio.current_task()
        if client is None or task is None:
            raise ConnectionResetError  # it has left
        self._answering.add(task)
        try:
            await request.read()
            client.answering()
            return await handler(request)
        finally:
            self._answering.discard(task)
            client.answered()

    def admit(self, transport: asyncio.Transport, client: _Client) -> bool:
        """Take a client in, if need be for one that is waited for."""
        if len(self._connected) >= self.limits.clients:
            waited_for = next((one for one in self._connected.values() if not one.is_answered), None)
            if waited_for is None:
                if not self._refusing:
                    _log.warning("too many clients at once: more are refused", clients=self.limits.clients)
                self._refusing = True
                return False
            waited_for.hang_up()
        self._refusing = False
        self._connected[transport] = client
        self._all_left.clear()
        return True

    def moved(self, transport: object) -> None:
        """One of them has been answered: the others have been waited for longer."""
        client = self._connected.pop(transport, None)
        if client is not None:
            self._connected[transport] = client

    async def finish(self, seconds: float) -> None:
        """Let those who have come already get their answers and leave; hang up on who has not by then.

        Of a server that takes in nobody any more, and hangs up after each answer.
        """
        try:
            async with asyncio.timeout(seconds):
                for _ in range(_ROUNDS):
                    await asyncio.sleep(0)
                await self._all_left.wait()
        except TimeoutError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Hang up on all of them, whatever they are being answered."""
        for task in self._answering:
            task.cancel()
        for client in tuple(self._connected.values()):
            client.hang_up()

    def left(self, transport: object) -> None:
        """One of them is gone."""
        self._connected.pop(transport, None)
        if not self._connected:
            self._all_left.set()


class _Client(asyncio.Protocol):
    """Stands before the protocol of one client, and hangs up when it takes too long or too much."""

    def __init__(self, clients: Clients, inner: asyncio.Protocol) -> None:
        self._clients = clients
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._request = _Deadline(clients.limits.request_seconds, self.hang_up)
        self._write = _Deadline(clients.limits.write_seconds, self.hang_up)
        self._ahead = 0
        self.is_answered = False

    def answering(self) -> None:
        """Its request has come in whole."""
        self.is_answered, self._ahead = True, 0
        self._request.stop()

    def answered(self) -> None:
        """The answer has been given: it may send the next request."""
        self.is_answered = False
        if self._transport is not None:
            self._clients.moved(self._transport)
            self._request.start()

    def hang_up(self) -> None:
        """End it at once, whatever has not been sent."""
        if self._transport is not None:
            self._clients.left(self._transport)
            self._transport.abort()  # close() would wait for a client that does not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it in, or tell it that there are too many."""
        took = cast("asyncio.Transport", transport)
        if not self._clients.admit(took, self):
            took.write(self._clients.refusal)
            took.close()
            return
        self._transport = took
        took.set_write_buffer_limits(high=0)  # so that a drain waits until the kernel has it all
        self._request.start()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what belongs to a request."""
        if self._transport is None:
            return
        if self.is_answered:
            self._ahead += len(data)
            if self._ahead > _AHEAD_BYTES:
                self.hang_up()
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """It will send no more."""
        return None if self._transport is None else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._transport is None:
            return
        self._clients.left(self._transport)
        self._request.stop()
        self._write.stop()
        self._transport = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The kernel has no room for more of the answer: from now on it is the client's time."""
        self._write.start()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It has taken all."""
        self._write.stop()
        self._inner.resume_writing()


class _Deadline:
    """Calls something when it has run for so many seconds without being stopped."""

    def __init__(self, seconds: float, over: Callable[[], None]) -> None:
        self._seconds = seconds
        self._over = over
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, or begin anew."""
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._over)

    def stop(self) -> None:
        """It is met."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
