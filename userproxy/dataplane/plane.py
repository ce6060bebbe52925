"""The data side as a whole: takes messages (what to serve), gives messages (counts, rows)."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import chain
from time import monotonic, process_time_ns
from typing import TYPE_CHECKING, NamedTuple

from userproxy.backends.checker import Checker
from userproxy.backends.service import LiveService
from userproxy.dataplane.connections import ConnectionTable, Relayed
from userproxy.dataplane.news import News
from userproxy.dataplane.pressure import Pressure, Room
from userproxy.dataplane.spare import Spare
from userproxy.dataplane.tcp.connection import Connection
from userproxy.dataplane.tcp.context import Context
from userproxy.dataplane.tcp.dial import dialling
from userproxy.dataplane.tcp.expiry import Lifetimes
from userproxy.dataplane.tcp.greeting import Reception, is_announced
from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.dataplane.tcp.listener import Listener
from userproxy.dataplane.tcp.pipes import PipePool
from userproxy.dataplane.tcp.sources import Sources
from userproxy.dataplane.tcp.waiting import WaitingRoom
from userproxy.dataplane.udp.datagrams import Datagrams
from userproxy.dataplane.udp.listener import DatagramListener
from userproxy.dataplane.vitals import vitals_of
from userproxy.model import messages
from userproxy.model.counters import Counters
from userproxy.model.service import Protocol
from userproxy.model.state import Serve
from userproxy.net.poller import Poller, Watch

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterable, Mapping

    from userproxy.model.counts import ServiceCount
    from userproxy.model.heritage import Pin
    from userproxy.model.service import PoolName

# What the kernel has a blocking socket wait for memory (sk_stream_wait_memory in net/core/stream.c), about.
_REST_SECONDS = 0.1

_SWEEP_SECONDS = 5.0

# How long a listener goes on whose place another one has taken: the rules that lead to it change meanwhile.
_FORMER_SECONDS = 1.0

# The share of the connections that there may be, one in so many, that is for those in the listen queues.
_RESERVE = 16

# Of these, as many have files of their own, if the system should have none.
_MOST_SPARE = 64
_FILES_OF_CONNECTION = 2

# Pipes to keep for the next bytes.
_SPARE_PIPES = 64


class Limits(NamedTuple):
    """What a data plane may have at once.

    Attributes:
        connections: over this many, accepting waits until one ends.
        pipes: over this many, bytes are copied instead of spliced.
        sessions: of UDP clients; over this many, the one that was heard of least recently gives way.
    """

    connections: int
    pipes: int
    sessions: int = 1000


class DataPlane:
    """Listeners, connections and what they share, on one event loop.

    Args:
        loop: that drives it.
        limits: what it may have at once.
        linger: seconds without a byte on a half-closed connection before it is given up.
        place: of this plane among all, from 0, and their number: each begins elsewhere in a rotation of
            backends, and has its part of a Service's limit.
        recorded: so many connections that are over are remembered.

    Attributes:
        need_pods: called with the name of a pool that clients wait for, from time to time while they do.
        connections: the table of live connections.
        services: by Service port, what is served now.
        counters: of this process.
        checker: makes the active checks.
        datagrams: all that is about UDP.
        sources: lends clients' addresses to connections.
        news: what others are to be told of unasked.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        limits: Limits,
        linger: float = 60.0,
        place: tuple[int, int] = (0, 1),
        recorded: int = 0,
    ) -> None:
        self.counters = Counters()
        self.need_pods: Callable[[PoolName], object] | None = None
        self.connections = ConnectionTable(self.counters, recorded=recorded)
        self.services: dict[PoolName, LiveService] = {}
        self._retired: dict[PoolName, set[LiveService]] = {}  # those that have connections
        self._loop = loop
        self._max_connections = limits.connections
        self._place = place
        self._listeners: dict[PoolName, AnyListener] = {}
        self._former: dict[AnyListener, tuple[PoolName, asyncio.TimerHandle]] = {}
        self._poller = Poller()
        self.news = News(self.services, self._poller.clock)
        self._acceptors = Poller()
        self._poller.nest(self._acceptors)
        self._poller.attach(loop)
        reserve = limits.connections // _RESERVE
        room = Room(self._room_left, reserve, Spare(_FILES_OF_CONNECTION * min(reserve, _MOST_SPARE)))
        self._pressure = Pressure(loop, self._poller, self._acceptors, self.connections, room)
        self._drained = asyncio.Event()
        self._hurried = False
        self.sources = Sources(self.counters)
        self._context = Context(
            poller=self._poller,
            pipes=PipePool(limits.pipes),
            dialling=dialling(loop, self._poller, self._pressure.starve, self.sources),
            half_closed=Watch(loop, min(linger / 4, 1.0), Connection.look_at_half_closed),
            resting=Watch(loop, _REST_SECONDS, Connection.wake),
            reception=Reception(loop, self._poller),
            waiting=WaitingRoom(loop, self._poller, self.counters, self._need_pods),
            id_of=self.connections.id_of,
            ended=self._ended,
            linger=linger,
            original=self.connections.recorder.original,
        )
        self.datagrams = Datagrams(loop, self._poller, self.connections, self._ended, limits.sessions)
        self.checker = Checker(loop, self._poller, self.services, self.counters, share=1 / place[1])
        self._lifetimes = Lifetimes(loop, self.connections.live, monotonic)
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def heed_pressure(self, on_full: Callable[[bool], object]) -> None:
        """Call this with whether clients had better go elsewhere, when that changes."""
        self._pressure.on_full = on_full

    @property
    def paused(self) -> str:
        """Why accepting waits; empty while it does not."""
        return self._pressure.reason

    def report(self) -> list[ServiceCount]:
        """What is known of each Service port that has been in use, former ones with connections included."""
        found = [service.report() for service in self.services.values()]
        # Nobody dials or checks the backends of former ones any more, so nobody learns that one is back.
        found += [service.report(judged=False) for service in chain.from_iterable(self._retired.values())]
        return [count for count in found if count.connections or count.backends]

    def totals(self, serial: int = 0) -> messages.Totals:
        """The whole of it."""
        self.counters.worker_cpu_time[str(self._place[0])] = process_time_ns()
        return messages.Totals(
            serial=serial,
            connections=len(self.connections.live),
            waiting=len(self._context.waiting),
            paused=self._pressure.reason,
            full=self._pressure.full,
            counters=self.counters,
            vitals=vitals_of(self._place[0], self._max_connections, self._context.pipes, self.datagrams),
        )

    def pins(self) -> list[messages.Pins]:
        """Where clients are pinned to, of all pools that have affinity, those included that are retired."""
        now = self._context.poller.clock()
        services = (*self.services.values(), *chain.from_iterable(self._retired.values()))
        return [messages.Pins(pool=each.pool.name, pins=tuple(each.affinity.all(now))) for each in services]

    def learn(self, name: PoolName, pins: Iterable[Pin]) -> None:
        """Take over pins of other workers."""
        service = self.services.get(name)
        if service is not None and service.pool.affinity is not None:
            service.affinity.learn(pins, self._context.poller.clock())

    @property
    def serves(self) -> list[Serve]:
        """What is served by the open listeners, in their order."""
        pools = (self.services[name].pool for name in self._listeners)
        return [pool for pool in pools if isinstance(pool, Serve)]

    @property
    def listeners(self) -> Mapping[PoolName, AnyListener]:
        """By Service port, the open listeners."""
        return self._listeners

    def serve(self, serves: Iterable[Serve], opened: Mapping[PoolName, socket]) -> None:
        """Accept on new listeners, and take over new backends on all, those of former listeners included.

        Args:
            serves: what is wanted of some Service ports.
            opened: the listening sockets of those among them that are new, or have a new one. From now on
                they belong to the data plane.
        """
        for serve in serves:
            for former in self._retired.get(serve.name, ()):
                former.update(serve)  # its connections are to end with their pods all the same
                self._lifetimes.watch(former)
                self._context.waiting.settle(former)
            self._serve(serve, opened.get(serve.name))

    def _serve(self, serve: Serve, sock: socket | None) -> None:
        service, listener = self.services.get(serve.name), self._listeners.get(serve.name)
        if listener is not None and isinstance(listener, DatagramListener) != _is_udp(serve):
            self._stop_accepting(serve.name)
            service = None
        if service is None and sock is None:
            return  # this plane accepts no more
        if service is None:
            # One worker alone has the clients of a UDP Service port.
            place = (0, 1) if _is_udp(serve) else self._place
            service = LiveService(serve, place, counters=self.counters)
            self.services[serve.name] = service
            service.on_failure = self.checker.hasten
            service.on_change = self.news.note_change
            service.on_pin = self.news.note_pin
            for _ in range(place[0]):
                service.balancer.pick()
        else:
            service.update(serve)
            self.news.note_change(service)  # one that came back as another pod is no longer down
            if isinstance(listener, DatagramListener):
                listener.update(serve)
        if sock is not None:
            self._open(service, serve, sock)
        self._lifetimes.watch(service)
        self._context.waiting.settle(service)
        self._heed_limit(service)

    def _open(self, service: LiveService, serve: Serve, sock: socket) -> None:
        def admit(client: socket, peer: tuple[str, int]) -> bool:
            return self._admit(service, client, peer)

        name = service.pool.name
        former = self._listeners.pop(name, None)
        if former is not None:
            timer = self._loop.call_later(_FORMER_SECONDS, self._close_former, former)
            self._former[former] = name, timer
        self._listeners[name] = (
            self.datagrams.open(serve, service, sock)
            if _is_udp(serve)
            else Listener(serve.listener, sock, self._acceptors, admit, self._pressure.out_of_resources)
        )

    def _close_former(self, listener: AnyListener) -> None:
        _, timer = self._former.pop(listener)
        timer.cancel()
        listener.close()

    def _former_of(self, name: PoolName) -> list[AnyListener]:
        return [listener for listener, (owner, _) in self._former.items() if owner == name]

    def close(self, names: Iterable[PoolName]) -> None:
        """Stop accepting for these Service ports. Their connections live on."""
        for name in names:
            service = self.services.get(name)
            self._stop_accepting(name)
            self.connections.traffic.forget(name.service_port)
            for former in {service, *self._retired.get(name, ())} - {None}:
                former.retire()
                self._context.waiting.settle(former)

    def _stop_accepting(self, name: PoolName) -> None:
        for former in self._former_of(name):
            self._close_former(former)
        listener = self._listeners.pop(name, None)
        if listener is not None:
            listener.close()
        service = self.services.pop(name, None)
        self.news.forget(name)
        if service is not None and service.connections:
            self._retired.setdefault(name, set()).add(service)

    async def drain(self, seconds: float | None) -> int:
        """Stop accepting for all, and wait for the connections to end.

        UDP clients are left to another worker if that may take for ever; else those are served who are known.

        Args:
            seconds: how long; None for as long as it takes.

        Returns:
            How many were left after that time, and have been reset; with a limit, those are who wait for
            endpoints, as nobody will tell of any.
        """
        for name, listener in tuple(self._listeners.items()):
            if not isinstance(listener, DatagramListener):
                self._stop_accepting(name)
        cut = 0
        if seconds is None:
            self.datagrams.pause()
        else:
            self.datagrams.drain()
            cut = self._context.waiting.empty()
        if self.connections.live and not self._hurried:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._drained.wait()
        left = tuple(self.connections.live.values())
        for connection in left:
            connection.end(Event.SHUTDOWN)
        return cut + len(left)

    def end_drain(self) -> None:
        """Stop waiting for connections to end, now or as soon as `drain` is called."""
        self._hurried = True
        self._drained.set()

    def shut(self) -> None:
        """Give everything back to the system. Nothing can be served after this."""
        self._sweeper.cancel()
        for former in tuple(self._former):
            self._close_former(former)
        self._pressure.stop()
        self._context.dialling.waiting.stop()
        self._context.half_closed.stop()
        self._context.resting.stop()
        self._context.reception.stop()
        self._context.waiting.stop()
        self._lifetimes.stop()
        self.checker.stop()
        self.datagrams.stop()
        self.sources.close()
        self._acceptors.shut()
        self._poller.shut()
        self._context.pipes.close()
        self.connections.recorder.stop()

    def _admit(self, service: LiveService, client: socket, peer: tuple[str, int]) -> bool:
        connections, networks = self.connections, service.pool.settings.accept_proxy_protocol
        if service.is_full_for(peer[0]) and not is_announced(peer[0], networks):
            connections.turn_away(service, client, peer)
            return True
        connection = Connection(connections.next_number(), self._context, service, client, peer)
        connections.add(connection)
        connection.open()
        self._pressure.rise()
        if service.is_full:
            self._heed_limit(service)
            return False
        return not self._pressure.reason

    def _room_left(self) -> float:
        """How many more connections there may be. A session has half as many files open as one."""
        return self._max_connections - len(self.connections.live) + self.datagrams.count / 2

    def _heed_limit(self, service: LiveService) -> None:
        """Have clients wait while a Service port has as many connections as it may. Others notice nothing."""
        name = service.pool.name
        listener = self._listeners.get(name)
        if listener is not None and self.services.get(name) is service:  # or else it is a former one's end
            for each in (listener, *self._former_of(name)):
                each.wait(service.is_full)

    def _ended(self, connection: Relayed) -> None:
        self.connections.remove(connection)
        service = connection.service
        if service.pool.settings.max_connections is not None:
            self._heed_limit(service)
        if self._retired and not service.connections:
            self._forget_retired(service)
        self._pressure.fall()
        if not self.connections.live:
            self._drained.set()

    def _need_pods(self, name: PoolName) -> None:
        if self.need_pods is not None:
            self.need_pods(name)

    def _forget_retired(self, service: LiveService) -> None:
        name = service.pool.name
        former = self._retired.get(name, set())
        former.discard(service)
        if not former:
            self._retired.pop(name, None)

    def _sweep(self) -> None:
        """What needs no promptness: keepalive for connections that last, spare pipes back to the system."""
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        self.connections.sweep()
        self.datagrams.sweep()
        self._context.pipes.trim(_SPARE_PIPES)


AnyListener = Listener | DatagramListener


def _is_udp(serve: Serve) -> bool:
    return serve.protocol is Protocol.UDP
