"""One worker, as the control side sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from userproxy.model import messages
from userproxy.model.counters import Counters
from userproxy.worker.channel import Channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from userproxy.model.heritage import SessionState
    from userproxy.model.service import PoolName
    from userproxy.model.state import Serve

_PARTS = msgspec.msgpack.Decoder(messages.Parts)
_ENCODER = msgspec.msgpack.Encoder()

# A worker that is alive answers within a moment; one that does not is stopped in a debugger, or worse.
ANSWER_SECONDS = 10.0

_REAP_SECONDS = 0.05

log = structlog.get_logger("userproxy.workers")


class WorkerGoneError(Exception):
    """The worker has ended, or does not answer."""


class OrderFailedError(Exception):
    """The worker could not apply the order. Its log says more."""


class Callbacks(NamedTuple):
    """Whom a handle tells.

    Attributes:
        gone: called once when the worker has ended.
        leaving: called when the worker has been asked to end by somebody else.
        pinned: called with pins that the worker tells of unasked.
        judged: likewise with what it has found of backends.
        need_pods: called with the name of a pool that clients wait for.
        outage: called with the backends of a pool that are down.
        left: called with what a worker remembers that is about to end.
    """

    gone: Callable[[WorkerHandle], None]
    leaving: Callable[[WorkerHandle], None]
    pinned: Callable[[WorkerHandle, messages.Pins], None] = lambda _handle, _pins: None
    judged: Callable[[WorkerHandle, messages.Judgements], None] = lambda _handle, _part: None
    need_pods: Callable[[PoolName], None] = lambda _pool: None
    outage: Callable[[WorkerHandle, messages.Outage], None] = lambda _handle, _part: None
    left: Callable[[WorkerHandle, messages.Records], None] = lambda _handle, _records: None


class WorkerHandle:
    """A worker to give orders to. Lives as long as the worker does.

    Args:
        sock: the connection to it.
        pid: its process, or 0 if that cannot be seen from here.
        tell: whom to tell.

    Attributes:
        pid: its process, as it calls it itself if it cannot be seen from here.
        name: what the ids of its connections begin with; no other worker here has it.
        held: what it was serving when it was found, with the listening sockets.
        yielded: the sessions that it has given up, with their sockets.
        queue: the socket of the netfilter queue that it has given up; -1: none.
        counters: what it had counted when it last said so.
        holds: how many Service ports it was serving when it was found.
        beats: it said to the kernel then that it accepts clients, and all of its sockets have come along.
        retiring: whether it has been told to go.
        patience: seconds that it has for an answer.
    """

    def __init__(self, sock: socket.socket, pid: int, tell: Callbacks) -> None:
        loop = asyncio.get_running_loop()
        self.pid = self.name = pid
        self.retiring = self.beats = False
        self.holds = 0
        self.held: list[tuple[Serve, int]] = []
        self.yielded: list[tuple[SessionState, int]] = []
        self.queue = -1
        self.counters = Counters()
        self.patience = ANSWER_SECONDS
        self._visible = bool(pid)
        self._callbacks = tell
        self._serial = 0
        self._expected = -1
        self._given_up = False
        self._silent = False
        self._ready: asyncio.Future[None] = loop.create_future()
        self._waiting: dict[int, tuple[list[messages.Parts], asyncio.Future[None]]] = {}
        self._channel = Channel(sock, loop, self._on_message, self._on_closed)

    @property
    def is_alive(self) -> bool:
        """Whether orders reach it."""
        return self._channel.is_open

    @property
    def is_visible(self) -> bool:
        """Whether its process can be seen from here, and `pid` is what it is called here."""
        return self._visible

    @property
    def is_silent(self) -> bool:
        """Whether it has failed to answer, and said nothing since."""
        return self._silent

    async def ready(self, seconds: float | None = None) -> None:
        """Wait until it has said what it holds.

        Args:
            seconds: how long; its patience by default.

        Raises:
            WorkerGoneError: it did not; what it says later is not wanted any more.
        """
        try:
            await self._within(self._ready, self.patience if seconds is None else seconds)
        except WorkerGoneError:
            self._given_up = True
            for _, fd in self.held:
                os.close(fd)
            self.held.clear()
            raise

    async def ask(
        self, order: messages.Orders, fds: Sequence[int] = (), seconds: float | None = None
    ) -> list[messages.Parts]:
        """Give an order, and wait until it is applied; returns the parts of the answer.

        Args:
            order: what to do; its serial number is put in here.
            fds: file descriptors that go with it; they stay open here.
            seconds: how long to wait. By default its patience, and not at all for a worker that has failed to
                answer and has been silent since.

        Raises:
            WorkerGoneError: it ended, or did not answer.
            OrderFailedError: it could not do it.
        """
        if not self.is_alive:
            raise WorkerGoneError(f"worker {self.pid} has ended")
        if self._silent and seconds is None:
            raise WorkerGoneError(f"worker {self.pid} does not answer")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parts: list[messages.Parts] = []
        serial = self.tell(order, fds)
        self._waiting[serial] = (parts, done)
        try:
            await self._within(done, self.patience if seconds is None else seconds)
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
        """End it at once, if it lives and its process can be seen from here."""
        if self._visible and self.is_alive:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:  # it has a user of its own, since it was started with more than we have
                log.error("a worker cannot be ended: that takes CAP_KILL", pid=self.pid)  # noqa: TRY400

    def leave(self) -> None:
        """Hang up, and let it work on."""
        self._channel.close()

    async def _within(self, future: asyncio.Future[None], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            self._silent = True
            raise WorkerGoneError(f"worker {self.pid} does not answer") from None

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        self._silent = False
        try:
            part = _PARTS.decode(message)
        except msgspec.DecodeError as error:
            # Another version's: what it says cannot be used, and whoever waits for it hears nothing.
            log.error("a worker cannot be understood", pid=self.pid, error=str(error))  # noqa: TRY400
            _close_all(fds)
            return
        self._on_part(part, fds)

    def _on_part(self, part: messages.Parts, fds: list[int]) -> None:
        match part:
            case messages.Hello(pid=pid, holds=holds, name=name, beats=beats):
                self.beats, self.holds = beats, holds
                self.pid, self.name, self._expected = self.pid or pid, name or pid, holds
            case messages.Holds() | messages.Sessions() | messages.Queue():
                self._take_sockets(part, fds)
            case messages.Leaving():
                self._callbacks.leaving(self)
            case messages.NeedPods(pool=pool):
                self._callbacks.need_pods(pool)
            case messages.Outage():
                self._callbacks.outage(self, part)
            case messages.Records():
                self._callbacks.left(self, part)
            case messages.Done():
                self._done(part)
            case _:
                self._keep(part)
        if len(self.held) == self._expected:
            _settle(self._ready)

    def _take_sockets(
        self, part: messages.Holds | messages.Sessions | messages.Queue, fds: list[int]
    ) -> None:
        """Take what came with sockets, if anybody waits for it. Fewer come if we may open no more files."""
        match part:
            case messages.Holds(serves=serves) if not self._given_up:
                self._expected -= len(serves) - len(fds)
                self.beats &= len(serves) == len(fds)
                self.held += zip(serves, fds, strict=False)
            case messages.Sessions(serial=serial, sessions=sessions) if serial in self._waiting:
                self.yielded += zip(sessions, fds, strict=False)
            case messages.Queue(serial=serial) if serial in self._waiting and fds:
                self.queue = fds[0]
            case _:
                _close_all(fds)

    def _done(self, part: messages.Done) -> None:
        if part.error:
            log.error("a worker failed at an order: its log says why", pid=self.pid, error=part.error)
        if part.serial in self._waiting:
            _settle(self._waiting[part.serial][1], OrderFailedError(part.error) if part.error else None)

    def _keep(self, part: messages.Parts) -> None:
        if isinstance(part, messages.Totals):
            self.counters = part.counters
        if part.serial in self._waiting:
            self._waiting[part.serial][0].append(part)
        elif isinstance(part, messages.Pins):
            self._callbacks.pinned(self, part)
        elif isinstance(part, messages.Judgements):
            self._callbacks.judged(self, part)

    def _on_closed(self) -> None:
        gone = WorkerGoneError(f"worker {self.pid} has ended")
        for future in (self._ready, *(done for _, done in self._waiting.values())):
            if not future.done():
                future.set_exception(gone)
                future.exception()  # that nobody waits for it is no error
        if self._visible:
            _reap(asyncio.get_running_loop(), self.pid)
        self._callbacks.gone(self)


async def answers_of(
    handles: Sequence[WorkerHandle], ask: Callable[[WorkerHandle], Awaitable[list[messages.Parts]]]
) -> list[list[messages.Parts]]:
    """Ask several at once; the answers of those that give one."""
    answers = await asyncio.gather(*(ask(handle) for handle in handles), return_exceptions=True)
    found = []
    for answer in answers:
        if isinstance(answer, WorkerGoneError | OrderFailedError):
            log.warning("a worker did not answer", reason=str(answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.append(answer)
    return found


def _reap(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # not a child of ours, but of an earlier control side
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            loop.call_later(_REAP_SECONDS, _reap, loop, pid)


def _settle(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
