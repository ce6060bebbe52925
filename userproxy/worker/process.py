"""A worker: a data plane, and the orders it takes. Runs as `python -m userproxy.worker.process FD`."""

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

from userproxy.dataplane.plane import DataPlane
from userproxy.logs import configure_logging
from userproxy.model import messages
from userproxy.worker import counts, door
from userproxy.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.model.service import ServicePortName

log = structlog.get_logger("userproxy.worker")

_ORDERS = msgspec.msgpack.Decoder(messages.Orders)
_ENCODER = msgspec.msgpack.Encoder()

# Service ports in one message, be it their sockets or their counts.
CHUNK = 100


class Worker:
    """The data plane of this process, and its control side, if there is one.

    Lives until it has been told to go (`Retire`, `Drain`, SIGTERM) and its connections have ended.

    Args:
        tasks: what takes longer than a moment runs there.
    """

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = tasks
        self._plane: DataPlane | None = None
        self._channel: Channel | None = None
        self._over = asyncio.Event()
        self._orphan_seconds: float | None = None
        self._orphan: asyncio.TimerHandle | None = None
        self._door = door.open_door(os.getpid())
        self._loop.add_reader(self._door.fileno(), self._on_visitor)
        self._loop.add_signal_handler(signal.SIGTERM, self._retire)

    async def work(self) -> None:
        """Return when it is over."""
        await self._over.wait()
        self._loop.remove_reader(self._door.fileno())
        self._door.close()
        if self._plane is not None:
            self._plane.shut()
        if self._channel is not None:
            self._channel.close()

    def attend(self, sock: socket.socket) -> None:
        """Take orders from the control side at the other end; first say what is held."""
        if self._orphan is not None:
            self._orphan.cancel()
        self._channel = Channel(sock, self._loop, self._on_order, self._on_control_gone)
        plane = self._plane
        serves = [plane.services[name].serve for name in plane.listeners] if plane else []
        self._say(messages.Hello(pid=os.getpid(), holds=len(serves)))
        for start in range(0, len(serves), CHUNK):
            part = tuple(serves[start : start + CHUNK])
            fds = [plane.listeners[serve.service].fileno() for serve in part] if plane else []
            self._say(messages.Holds(serves=part), fds)

    def _on_visitor(self) -> None:
        visitor, _ = self._door.accept()
        if self._channel is not None or not door.admits(visitor):
            visitor.close()
        else:
            self.attend(visitor)

    def _on_control_gone(self) -> None:
        self._channel = None
        if self._plane is None:
            self._over.set()
        elif not self._over.is_set():
            log.warning("the control side is gone; what it said last is served on")
            if self._orphan_seconds is not None:
                self._orphan = self._loop.call_later(self._orphan_seconds, self._over.set)

    def _on_order(self, message: bytes, fds: list[int]) -> None:
        order = _ORDERS.decode(message)
        error = ""
        try:
            if self._carry_out(order, fds):
                return
        except Exception as failure:
            log.exception("an order could not be carried out", order=type(order).__name__)
            error = f"{type(order).__name__}: {failure!r}"
        self._say(messages.Done(serial=order.serial, error=error))

    def _carry_out(self, order: messages.Orders, fds: list[int]) -> bool:
        """Do what the order says; returns whether that goes on, and will say itself when it is done."""
        match order:
            case messages.Begin():
                self._begin(order)
            case messages.Apply():
                self._apply(order, fds)
            case messages.ListConnections():
                self._tasks.create_task(self._list(order))
                return True
            case messages.Kill():
                self._tasks.create_task(self._kill(order))
                return True
            case messages.Count():
                self._count(order)
            case messages.Retire():
                self._retire()
            case messages.Drain():
                self._tasks.create_task(self._drain(order))
                return True
        return False

    def _begin(self, order: messages.Begin) -> None:
        self._orphan_seconds = order.orphan_seconds
        configure_logging(order.log_format, order.log_level)
        structlog.contextvars.bind_contextvars(worker=order.index)
        self._plane = DataPlane(
            self._loop,
            max_connections=order.max_connections,
            max_pipes=order.max_pipes,
            linger=order.linger,
            place=(order.index, order.workers),
            trace=order.log_level == "debug",
        )
        # What lives now lives as long as the process: the garbage collector need not look at it again.
        gc.collect()
        gc.freeze()

    def _apply(self, order: messages.Apply, fds: Sequence[int]) -> None:
        if self._plane is None:
            return
        opened: dict[ServicePortName, raw_socket] = {
            name: _adopt(fd) for name, fd in zip(order.opens, fds, strict=True)
        }
        self._plane.serve(order.serves, opened)
        self._plane.close(order.closes)

    async def _list(self, order: messages.ListConnections) -> None:
        if self._plane is not None:
            for rows in self._plane.connections.rows(order.wanted):
                self._say(messages.Connections(serial=order.serial, rows=tuple(rows)))
                await asyncio.sleep(0)
        self._say(messages.Done(serial=order.serial))

    async def _kill(self, order: messages.Kill) -> None:
        count = 0
        if self._plane is not None:
            for killed in self._plane.connections.kill(order.numbers, order.wanted):
                count += killed
                await asyncio.sleep(0)
        self._say(messages.Killed(serial=order.serial, count=count))
        self._say(messages.Done(serial=order.serial))

    def _count(self, order: messages.Count) -> None:
        if self._plane is None:
            return
        found = counts.services(self._plane)
        for start in range(0, len(found), CHUNK):
            part = tuple(found[start : start + CHUNK])
            self._say(messages.ServiceCounts(serial=order.serial, services=part))
        self._say(counts.totals(self._plane, order.serial))

    def _retire(self) -> None:
        self._tasks.create_task(self._go(None))

    async def _drain(self, order: messages.Drain) -> None:
        cut = await self._go(order.seconds)
        self._say(messages.Drained(serial=order.serial, cut=cut))
        self._say(messages.Done(serial=order.serial))
        self._over.set()

    async def _go(self, seconds: float | None) -> int:
        cut = await self._plane.drain(seconds) if self._plane else 0
        if seconds is None:
            self._over.set()
        return cut

    def _say(self, part: messages.Parts, fds: Sequence[int] = ()) -> None:
        if self._channel is not None:
            self._channel.send(_ENCODER.encode(part), fds)


def _adopt(fd: int) -> raw_socket:
    """A listening socket that came with a message."""
    return raw_socket(fileno=fd)


async def _main(fd: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        worker = Worker(tasks)
        worker.attend(socket.socket(fileno=fd))
        await worker.work()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the control side, which then tells us
    uvloop.run(_main(int(sys.argv[1])))
