"""Workers on the test's own loop: real channels, and at their other end a script instead of a process."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from userproxy.dataplane.tcp.listener import listen as listen_to_streams
from userproxy.dataplane.udp.listener import listen as listen_to_datagrams
from userproxy.model import messages
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.messages import Begin
from userproxy.model.service import PoolName, Protocol, ServicePortName
from userproxy.model.state import Backend, Serve
from userproxy.worker.channel import Channel, pair
from userproxy.worker.origin import Origin
from userproxy.worker.pool import WorkerPool

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from userproxy.model.heritage import SessionState
    from userproxy.model.messages import Order, Orders, Part

ORDERS = msgspec.msgpack.Decoder(messages.Orders)
ENCODER = msgspec.msgpack.Encoder()

BEGIN = Begin(
    index=0,
    max_connections=1000,
    max_pipes=100,
    linger=60.0,
    orphan_seconds=None,
    log_format="console",
    log_level="error",
)
POD1, POD2 = Address("10.0.1.2", 8080), Address("10.0.2.2", 8080)
ANY_PORT = Address("127.0.0.1", 0)


class ScriptedWorker:
    """A worker that does as it is told, at once, unless the script has it otherwise.

    Args:
        pid: what it says that it is.
        holds: what it serves already, with the listening sockets.

    Attributes:
        orders: what it was told, but for what it was asked.
        serves: what it serves.
        files: by Service port, the inode of its listening socket.
        fds: how many descriptors came with each order.
        is_mute: it does not even say hello.
        beats: it says that it beats.
        silent: it says nothing to these kinds of orders.
        dies_at: it ends when it gets such an order.
        fails: by kind of order, what it fails with.
        answers: by kind of order, what it says before it is done.
        sessions: of UDP clients, that it gives up when it is told to, with their sockets.
        inherited: those that it was given, with the inodes of their sockets.
        is_left: its control side has hung up.
    """

    def __init__(self, pid: int, holds: Mapping[Serve, int] | None = None) -> None:
        self.pid = pid
        self.orders: list[Order] = []
        self.serves: dict[PoolName, Serve] = {}
        self.files: dict[PoolName, int] = {}
        self.fds: list[int] = []
        self.is_mute = False
        self.beats = False
        self.silent: tuple[type[Order], ...] = ()
        self.dies_at: tuple[type[Order], ...] = ()
        self.fails: dict[type[Order], str] = {}
        self.answers: dict[type[Order], list[Part]] = {}
        self.sessions: dict[SessionState, int] = {}
        self.inherited: dict[SessionState, int] = {}
        self.is_left = False
        self._holds = dict(holds or {})
        self._channel: Channel | None = None

    def attend(self, sock: socket.socket, most: int = 100) -> None:
        """Take orders from whoever is at the other end; first say what it holds, so many in a message."""
        self._channel = Channel(sock, asyncio.get_running_loop(), self._on_message, self._on_closed)
        if self.is_mute:
            return
        self.say(messages.Hello(pid=self.pid, holds=len(self._holds), beats=self.beats))
        held = list(self._holds.items())
        for start in range(0, len(held), most):
            part = held[start : start + most]
            self.say(messages.Holds(serves=tuple(serve for serve, _ in part)), *(fd for _, fd in part))

    def say(self, part: Part, *fds: int) -> None:
        """Anything."""
        self.say_raw(ENCODER.encode(part), *fds)

    def say_raw(self, message: bytes, *fds: int) -> None:
        """Anything at all."""
        if self._channel is not None:
            self._channel.send(message, fds)

    def die(self) -> None:
        """The process ends."""
        if self._channel is not None:
            self._channel.close()

    def told(self, kind: type[Order]) -> list[Order]:
        """The orders of one kind."""
        return [order for order in self.orders if type(order) is kind]

    def _on_closed(self) -> None:
        self.is_left = True

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        order: Orders = ORDERS.decode(message)
        kind = type(order)
        if kind in self.dies_at:
            _close_all(fds)
            self.die()
            return
        self.orders.append(order)
        if isinstance(order, messages.Apply):
            self.fds.append(len(fds))
        error = self.fails.get(kind, "")
        if isinstance(order, messages.Apply) and not error:
            self._apply(order, fds)
        if isinstance(order, messages.InheritSessions):
            files = (os.fstat(fd).st_ino for fd in fds)
            self.inherited |= zip(order.sessions, files, strict=True)
        _close_all(fds)
        if isinstance(order, messages.YieldSessions) and self.sessions:
            given = messages.Sessions(serial=order.serial, sessions=tuple(self.sessions))
            self.say(given, *self.sessions.values())
            self.sessions.clear()
        if kind not in self.silent:
            for part in self.answers.get(kind, ()):
                self.say(msgspec.structs.replace(part, serial=order.serial))
            self.say(messages.Done(serial=order.serial, error=error))

    def _apply(self, order: messages.Apply, fds: list[int]) -> None:
        self.serves |= {serve.name: serve for serve in order.serves}
        self.files |= {name: os.fstat(fd).st_ino for name, fd in zip(order.opens, fds, strict=True)}
        for name in order.closes:
            self.serves.pop(name, None)
            self.files.pop(name, None)


class Site:
    """A pool, and the workers that it finds or starts.

    Attributes:
        earlier: workers of an earlier control side.
        started: those that were started, in that order.
        script: called with each new worker before it says anything.
        error: why no further worker can be started.
        refused: how often one could not.
        next_pid: of the next worker.
    """

    def __init__(self) -> None:
        self.earlier: list[ScriptedWorker] = []
        self.started: list[ScriptedWorker] = []
        self.script: Callable[[ScriptedWorker], None] = lambda _: None
        self.error: OSError | None = None
        self.refused = 0
        self.pools: list[WorkerPool] = []
        self.next_pid = 101
        self._files: list[int] = []

    def pool(self, workers: int = 1) -> WorkerPool:
        """A control side that has yet to start."""
        made = WorkerPool(workers, BEGIN, Origin(self._start, self._find))
        self.pools.append(made)
        return made

    async def started_pool(self, workers: int = 1) -> WorkerPool:
        """One that has started."""
        pool = self.pool(workers)
        await pool.start()
        return pool

    def left_behind(self, *serves: Serve) -> ScriptedWorker:
        """A worker of an earlier control side that serves this."""
        worker = self._worker({serve: self.listening(serve.protocol) for serve in serves})
        self.earlier.append(worker)
        return worker

    def shut(self) -> None:
        """The end."""
        for pool in self.pools:
            pool.leave()
        for worker in (*self.earlier, *self.started):
            worker.die()
        _close_all(self._files)

    def _start(self) -> tuple[socket.socket, int]:
        if self.error is not None:
            self.refused += 1
            raise self.error
        worker = self._worker({})
        self.script(worker)
        self.started.append(worker)
        return self._connected(worker)

    def _worker(self, holds: Mapping[Serve, int]) -> ScriptedWorker:
        worker = ScriptedWorker(self.next_pid, holds)
        self.next_pid += 1
        return worker

    def _find(self) -> list[tuple[socket.socket, int]]:
        return [self._connected(worker) for worker in self.earlier]

    def _connected(self, worker: ScriptedWorker) -> tuple[socket.socket, int]:
        ours, theirs = pair()
        worker.attend(theirs)
        return ours, 0  # no process that could be seen, or ended

    def listening(self, protocol: Protocol = Protocol.TCP) -> int:
        """A listener of the site's own."""
        listen = listen_to_datagrams if protocol is Protocol.UDP else listen_to_streams
        fd = listen(ANY_PORT).detach()
        self._files.append(fd)
        return fd


def serve(
    name: str = "web",
    *backends: Address,
    listener: Address = ANY_PORT,
    protocol: Protocol = Protocol.TCP,
) -> Serve:
    """A Service port; by default each new listener gets whatever port is free."""
    return Serve(
        service=ServicePortName("default", name),
        listener=listener,
        backends=tuple(Backend(backend) for backend in backends or (POD1,)),
        protocol=protocol,
    )


def counted(opened: int, **ended: int) -> Counters:
    """What a worker has counted."""
    return Counters(connections_opened=opened, connections_ended=dict(ended))


def totals(opened: int, **ended: int) -> messages.Totals:
    """How a worker tells that."""
    return messages.Totals(connections=opened - sum(ended.values()), counters=counted(opened, **ended))


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
