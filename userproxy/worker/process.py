"""A worker: a data plane, and the orders it takes.

Runs as `python -m userproxy.worker.process FD PREFIX`, with the connection to its control side and the prefix
of the name of its rendezvous socket.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from _socket import socket as raw_socket
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvloop

from userproxy.dataplane.access_log import OFF, AccessLog
from userproxy.dataplane.plane import DataPlane, Limits
from userproxy.logs import configure_logging, set_level
from userproxy.model import messages
from userproxy.worker import privileges, rendezvous
from userproxy.worker.answers import Long, carry_out, leave_records
from userproxy.worker.channel import Channel
from userproxy.worker.heart import Heart

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from userproxy.model.service import PoolName

log = structlog.get_logger("userproxy.worker")

_ORDERS = msgspec.msgpack.Decoder(messages.Orders)
_ENCODER = msgspec.msgpack.Encoder()

# Service ports in one message, whether sockets or counts.
CHUNK = 100

# Pins in one message, and how soon other workers hear of one.
PINS = 1000
_PIN_SECONDS = 0.05

# A control side that starts anew is back by then.
_MISS_SECONDS = 5.0


class Worker:
    """The data plane of this process, and its control side, if there is one.

    Lives until it has been told to go (`Retire`, `Drain`, or SIGTERM while it has no control side) and its
    connections have ended; SIGUSR1 resets them.

    Args:
        tasks: what takes longer than a moment runs there.
        prefix: of the name of its rendezvous socket.
    """

    def __init__(self, tasks: asyncio.TaskGroup, prefix: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._plane: DataPlane | None = None
        self._heart: Heart | None = None
        self._channel: Channel | None = None
        self._next: socket.socket | None = None
        self._over = asyncio.Event()
        self._going = False
        self._asked = False
        self._drained: asyncio.Event | None = None
        self._orphan_seconds: float | None = None
        self._alone: list[asyncio.TimerHandle] = []
        self._pin_timer: asyncio.TimerHandle | None = None
        self._owner = os.geteuid()  # before this process becomes another user's
        self._rendezvous = rendezvous.listen(prefix)
        self._loop.add_reader(self._rendezvous.fileno(), self._on_visitor)
        self._loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        self._loop.add_signal_handler(signal.SIGUSR1, self._on_sigusr1)

    async def work(self) -> None:
        """Return when it is over."""
        await self._over.wait()
        for task in self._running:
            task.cancel()
        for timer in (*self._alone, self._pin_timer):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._rendezvous.fileno())
        self._rendezvous.close()
        self._stop_heart(leave=True)
        if self._plane is not None:
            self._say(self._plane.totals())  # lest what was counted since the last question be lost
            self._plane.shut()
        if self._channel is not None:
            self._channel.close()

    def attend(self, sock: socket.socket) -> None:
        """Take orders from the control side at the other end; first say what is held."""
        for timer in self._alone:
            timer.cancel()
        self._alone.clear()
        self._channel = Channel(sock, self._loop, self._on_message, self._on_control_gone)
        plane = self._plane
        serves = plane.serves if plane else []
        name = plane.connections.name if plane else 0
        beats = self._heart is not None and self._heart.beats
        self._say(messages.Hello(pid=os.getpid(), holds=len(serves), name=name, beats=beats))
        for start in range(0, len(serves), CHUNK):
            part = tuple(serves[start : start + CHUNK])
            fds = [plane.listeners[serve.name].fileno() for serve in part] if plane else []
            self._say(messages.Holds(serves=part), fds)
        self._tell_pins_soon()  # those that nobody was there to be told of

    def _on_visitor(self) -> None:
        try:
            visitor, _ = self._rendezvous.accept()
        except OSError:  # out of file descriptors, or the visitor is gone
            return
        if not rendezvous.is_ours(visitor, self._owner):
            visitor.close()
        elif self._channel is None:
            self.attend(visitor)
        else:
            # That the one before it is gone may be an event that this loop has yet to come to.
            if self._next is not None:
                self._next.close()
            self._next = visitor

    def _on_control_gone(self) -> None:
        self._channel = None
        if self._next is not None:
            visitor, self._next = self._next, None
            self.attend(visitor)
        elif self._plane is None or not (self._plane.listeners or self._plane.connections.live):
            self._over.set()
        else:
            if self._asked:  # and nobody may have heard it
                self._retire()
            if not self._going:
                self._plane.datagrams.resume()  # nobody has taken them over
                self._alone.append(self._loop.call_later(_MISS_SECONDS, self._tell_alone))
            if self._orphan_seconds is not None:
                self._alone.append(self._loop.call_later(self._orphan_seconds, self._end_alone))

    def _tell_alone(self) -> None:
        log.warning("the control side is gone; what it said last is served on", limit=self._orphan_seconds)

    def _end_alone(self) -> None:
        log.warning("no other control side came: ending", seconds=self._orphan_seconds)
        self._start(self._drain(messages.Drain(seconds=0)))

    def _on_sigterm(self) -> None:
        """Whoever gives orders sees to it that somebody else serves before we stop."""
        self._asked = True
        if self._channel is None:
            self._retire()
        else:
            self._say(messages.Leaving())

    def _on_sigusr1(self) -> None:
        """Whoever keeps our container alive can no longer."""
        self._start(self._drain(messages.Drain(seconds=0)))

    def _start(self, work: Coroutine[object, object, None], serial: int = 0) -> None:
        task = self._tasks.create_task(self._finish(work, serial))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _finish(self, work: Coroutine[object, object, None], serial: int) -> None:
        """Do what takes longer, and say that it is done. A failure is not to end this process."""
        error = ""
        try:
            await work
        except Exception as failure:
            log.exception("an order could not be applied")
            error = repr(failure)
        self._say(messages.Done(serial=serial, error=error))

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        try:
            order = _ORDERS.decode(message)
        except msgspec.DecodeError as error:  # another version's
            log.error("an order cannot be understood", error=str(error))  # noqa: TRY400
            for fd in fds:
                os.close(fd)
            return
        self._on_order(order, fds)

    def _on_order(self, order: messages.Orders, fds: list[int]) -> None:
        error = ""
        try:
            if self._execute(order, fds):
                return
        except Exception as failure:
            log.exception("an order could not be applied", order=type(order).__name__)
            error = f"{type(order).__name__}: {failure!r}"
        self._say(messages.Done(serial=order.serial, error=error))

    def _execute(self, order: messages.Orders, fds: list[int]) -> bool:
        """Do what the order says; returns whether that goes on, and will say itself when it is done."""
        match order:
            case messages.Begin():
                self._begin(order)
            case messages.Apply():
                self._apply(order, fds)
            case messages.Beat() | messages.Vouch():
                self._speak(order, fds)
            case (
                messages.ListConnections()
                | messages.ListRecords()
                | messages.Kill()
                | messages.YieldSessions()
                | messages.Count()
            ):
                self._start(self._carry_out(order), order.serial)
                return True
            case messages.LearnPins() | messages.ListPins():
                self._exchange_pins(order)
            case (
                messages.InheritSessions()
                | messages.KeepRecords()
                | messages.LogTo()
                | messages.SetLogLevel()
            ):
                self._take_in(order, fds)
            case messages.Retire():
                self._retire()
            case messages.Drain():
                self._start(self._drain(order), order.serial)
                return True
        return False

    def _begin(self, order: messages.Begin) -> None:
        self._orphan_seconds = order.orphan_seconds
        configure_logging(order.log_format, order.log_level)
        structlog.contextvars.bind_contextvars(worker=order.index)
        self._plane = DataPlane(
            self._loop,
            limits=Limits(order.max_connections, order.max_pipes, order.max_sessions),
            linger=order.linger,
            place=(order.index, order.workers),
            recorded=order.recorded,
        )
        self._plane.connections.name = order.name or os.getpid()
        self._plane.connections.traffic.by_service = order.by_service
        self._plane.heed_pressure(self._rest)
        if order.access_log != OFF:
            self._plane.connections.recorder.log = AccessLog(
                order.access_log, order.access_log_file, order.log_format, self._loop, self._plane.counters
            )
        self._plane.need_pods = self._need_pods
        self._plane.news.on_outage = self._say
        self._plane.news.on_pins = self._tell_pins_soon
        # There are no strangers' bytes yet, and nothing is imported any more.
        privileges.give_up_all_or_end()
        # What lives now lives as long as the process: the garbage collector need not look at it again.
        gc.collect()
        gc.freeze()

    def _speak(self, order: messages.Beat | messages.Vouch, fds: Sequence[int]) -> None:
        """Say to the kernel by these sockets what the order is about."""
        if isinstance(order, messages.Vouch):
            if self._plane is not None:
                self._plane.sources.equip(map(_adopt, fds))
            return
        for fd in fds:
            self._stop_heart(leave=False)
            counters = None if self._plane is None else self._plane.counters
            self._heart = Heart(self._loop, socket.socket(fileno=fd), counters)
            self._heart.rest(rests=self._plane is None or bool(self._plane.totals().full))
            self._heart.begin()

    def _rest(self, is_full: bool) -> None:
        if self._heart is not None:
            self._heart.rest(rests=is_full)

    def _stop_heart(self, *, leave: bool) -> None:
        if self._heart is not None:
            self._heart.stop(leave=leave)

    def _apply(self, order: messages.Apply, fds: Sequence[int]) -> None:
        if self._plane is None:
            return
        opened: dict[PoolName, raw_socket] = {
            name: _adopt(fd) for name, fd in zip(order.opens, fds, strict=True)
        }
        self._plane.serve(order.serves, opened)
        self._plane.close(order.closes)

    async def _carry_out(self, order: Long) -> None:
        if self._plane is not None:
            await carry_out(self._plane, order, self._say)

    def _take_in(
        self,
        order: messages.InheritSessions | messages.KeepRecords | messages.LogTo | messages.SetLogLevel,
        fds: Sequence[int],
    ) -> None:
        match order:
            case messages.SetLogLevel():
                set_level(order.level)
            case messages.LogTo() if self._plane is not None:
                self._plane.connections.recorder.log_to(fds[0])
            case messages.KeepRecords() if self._plane is not None:
                self._plane.connections.recorder.inherit(order.records)
            case messages.InheritSessions() if self._plane is not None:
                self._plane.datagrams.inherit(order.sessions, fds)

    def _exchange_pins(self, order: messages.LearnPins | messages.ListPins) -> None:
        if self._plane is None:
            return
        if isinstance(order, messages.LearnPins):
            self._plane.learn(order.pool, order.pins)
            return
        for part in self._plane.pins():
            for start in range(0, len(part.pins), PINS):
                some = part.pins[start : start + PINS]
                self._say(messages.Pins(serial=order.serial, pool=part.pool, pins=some))

    def _tell_pins_soon(self) -> None:
        """Let the other workers know of clients' pins, through the control side."""
        if self._pin_timer is None:
            self._pin_timer = self._loop.call_later(_PIN_SECONDS, self._tell_pins)

    def _tell_pins(self) -> None:
        self._pin_timer = None
        if self._channel is not None and self._plane is not None:
            for part in self._plane.news.fresh_pins():
                self._say(part)

    def _need_pods(self, name: PoolName) -> None:
        self._say(messages.NeedPods(pool=name))

    def _retire(self) -> None:
        if not self._going:
            self._going = True
            self._stop_heart(leave=self._channel is None)  # or else somebody else has begun to beat
            self._start(self._leave())

    async def _leave(self) -> None:
        if self._plane is not None:
            await self._plane.drain(None)
        await self._leave_records()
        self._loop.call_soon(self._over.set)

    async def _leave_records(self) -> None:
        if self._plane is not None and self._channel is not None:
            await leave_records(self._plane.connections, self._say, self._channel)

    async def _drain(self, order: messages.Drain) -> None:
        self._going = True
        self._stop_heart(leave=True)
        cut = 0
        if self._drained is not None:  # an earlier order counts them
            if order.seconds == 0 and self._plane is not None:
                self._plane.end_drain()
            await self._drained.wait()
        else:
            self._drained = asyncio.Event()
            cut = await self._plane.drain(order.seconds) if self._plane else 0
            self._drained.set()
        await self._leave_records()
        self._say(messages.Drained(serial=order.serial, cut=cut))
        self._loop.call_soon(self._over.set)

    def _say(self, part: messages.Parts, fds: Sequence[int] = ()) -> None:
        if self._channel is not None:
            self._channel.send(_ENCODER.encode(part), fds)


def _adopt(fd: int) -> raw_socket:
    """A socket that came with a message."""
    return raw_socket(fileno=fd)


async def _main(fd: int, prefix: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        worker = Worker(tasks, prefix)
        worker.attend(socket.socket(fileno=fd))
        await worker.work()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the control side, which then tells us
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2]))
