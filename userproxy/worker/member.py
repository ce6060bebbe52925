"""One worker, as the control side sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.model import messages
from userproxy.worker.channel import Channel, pair

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from userproxy.model.plan import Serve

_PARTS = msgspec.msgpack.Decoder(messages.Parts)
_ENCODER = msgspec.msgpack.Encoder()

# A worker that is alive answers within a moment; one that does not is stopped in a debugger, or worse.
ANSWER_SECONDS = 10.0

log = structlog.get_logger("userproxy.workers")


class WorkerGoneError(Exception):
    """The worker has ended, or does not answer."""


class Member:
    """A worker to give orders to. Lives as long as the worker does.

    Args:
        sock: the connection to it.
        gone: called once when it has ended.

    Attributes:
        pid: its process; 0 until it has said so.
        held: what it was serving when it was found, with the listening sockets.
        retiring: whether it has been told to go.
    """

    def __init__(self, sock: socket.socket, gone: Callable[[Member], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.retiring = False
        self.held: list[tuple[Serve, int]] = []
        self._gone = gone
        self._serial = 0
        self._expected = -1
        self._ready: asyncio.Future[None] = loop.create_future()
        self._waiting: dict[int, tuple[list[messages.Parts], asyncio.Future[None]]] = {}
        self._channel = Channel(sock, loop, self._on_part, self._on_closed)

    @property
    def is_alive(self) -> bool:
        """Whether orders reach it."""
        return self._channel.is_open

    async def ready(self) -> None:
        """Wait until it has said what it holds.

        Raises:
            WorkerGoneError: it did not.
        """
        await self._within(self._ready)

    async def ask(
        self, order: messages.Orders, fds: Sequence[int] = (), seconds: float | None = None
    ) -> list[messages.Parts]:
        """Give an order, and wait until it is carried out; returns the parts of the answer.

        Args:
            order: what to do; its serial number is put in here.
            fds: file descriptors that go with it; they stay open here.
            seconds: how long to wait; as long as anybody needs to answer by default.

        Raises:
            WorkerGoneError: it ended, or did not answer.
        """
        if not self.is_alive:
            raise WorkerGoneError(f"worker {self.pid} has ended")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parts: list[messages.Parts] = []
        serial = self.tell(order, fds)
        self._waiting[serial] = (parts, done)
        try:
            await self._within(done, seconds)
        finally:
            self._waiting.pop(serial, None)
        return parts

    def tell(self, order: messages.Orders, fds: Sequence[int] = ()) -> int:
        """Give an order without waiting; returns its serial number."""
        self._serial += 1
        order = msgspec.structs.replace(order, serial=self._serial)
        self._channel.send(_ENCODER.encode(order), fds)
        return self._serial

    def kill(self) -> None:
        """End it at once."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def leave(self) -> None:
        """Hang up, and let it work on."""
        self._channel.close()

    async def _within(self, future: asyncio.Future[None], seconds: float | None = None) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS if seconds is None else seconds):
                await future
        except TimeoutError:
            raise WorkerGoneError(f"worker {self.pid} does not answer") from None

    def _on_part(self, message: bytes, fds: list[int]) -> None:
        part = _PARTS.decode(message)
        match part:
            case messages.Hello(pid=pid, holds=holds):
                self.pid, self._expected = pid, holds
            case messages.Holds(serves=serves):
                self.held += zip(serves, fds, strict=True)
            case messages.Done(serial=serial, error=error):
                if error:
                    log.error("a worker failed at an order: its log says why", pid=self.pid, error=error)
                if serial in self._waiting:
                    _settle(self._waiting[serial][1])
            case _:
                if part.serial in self._waiting:
                    self._waiting[part.serial][0].append(part)
        if len(self.held) == self._expected:
            _settle(self._ready)

    def _on_closed(self) -> None:
        gone = WorkerGoneError(f"worker {self.pid} has ended")
        for future in (self._ready, *(done for _, done in self._waiting.values())):
            if not future.done():
                future.set_exception(gone)
                future.exception()  # that nobody waits for it is no error
        asyncio.get_running_loop().run_in_executor(None, _reap, self.pid)
        self._gone(self)


def start_worker() -> socket.socket:
    """Start a worker process; returns the connection to it."""
    ours, theirs = pair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "userproxy.worker.process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    process.returncode = 0  # it is waited for by pid, when its connection has closed
    return ours


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # not a child of ours, but of an earlier control side
        os.waitpid(pid, 0)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
