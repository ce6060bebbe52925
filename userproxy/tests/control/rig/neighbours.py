"""The neighbours of the control side, in memory: they do as they are told, and fail when they are to.

What they are told goes into one journal, a line each, so that a test sees in which order.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from typing import TYPE_CHECKING

from userproxy.model.counters import Counters
from userproxy.model.state import NodeState, Refuse
from userproxy.netfilter.ending.ending import Ended
from userproxy.worker.outages import Outages

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from userproxy.model.actions import CaptureChange
    from userproxy.model.address import Address
    from userproxy.model.endings import Reason
    from userproxy.model.filter import ConnectionFilter, RecordFilter
    from userproxy.model.messages import Parts
    from userproxy.model.records import RecordRow
    from userproxy.model.rows import ConnectionRow
    from userproxy.model.service import PoolName, ServicePortName
    from userproxy.model.state import Frontend, Serve, Steer, Target
    from userproxy.netfilter.bypass.claims import Taker
    from userproxy.netfilter.conntrack.flows import Flow
    from userproxy.netfilter.elements.pins import Kept


class InMemoryHearts:
    """What says to the kernel that workers accept clients: `userproxy.control.sides.Hearts`.

    Args:
        journal: where it notes which workers it ends.

    Attributes:
        begun: they beat.
        fullness: by place, why a worker has clients go elsewhere; None for one that does not answer.
    """

    def __init__(self, journal: list[str]) -> None:
        self.begun = False
        self.fullness: dict[int, str | None] = {0: ""}
        self._journal = journal

    @property
    def beating(self) -> frozenset[int]:
        """Of `Hearts`."""
        return frozenset(self.fullness) if self.begun else frozenset()

    def begin(self) -> None:
        """Of `Hearts`."""
        self.begun = True

    async def fullness_of(self, index: int, seconds: float) -> str | None:
        """Of `Hearts`: nobody waits."""
        del seconds
        return self.fullness[index]

    def end(self, index: int) -> None:
        """Of `Hearts`."""
        self._journal.append(f"end worker {index}")


class InMemoryRecollection:
    """What workers remember: `userproxy.control.sides.Recollection`.

    Attributes:
        rows: the connections, whatever is asked for.
    """

    def __init__(self) -> None:
        self.rows: list[RecordRow] = []

    async def records(self, wanted: RecordFilter) -> AsyncIterator[list[RecordRow]]:
        """Of `Recollection`; it leaves the filter to others."""
        del wanted
        yield self.rows


class InMemoryCrew:
    """What chooses for steered connections: `userproxy.control.sides.Crew`.

    Attributes:
        wanted: what it was told last.
        level: from which severity on it is to log, if that was said.
        living_counters: what the process has counted, by pid.
        past_counters: what processes have counted that are gone.
        recollection: connections that are over.
        expected: by key, why each connection is about to be ended.
    """

    def __init__(self) -> None:
        self.recollection = InMemoryRecollection()
        self.expected: dict[bytes, Reason | None] = {}
        self.wanted: dict[PoolName, Steer] = {}
        self.level = ""
        self.living_counters: dict[int, Counters] = {}
        self.past_counters = Counters()

    async def expect(self, flows: Collection[bytes], reason: Reason | None) -> None:
        """Note it."""
        self.expected |= dict.fromkeys(flows, reason)

    async def steer(self, wanted: Mapping[PoolName, Steer]) -> None:
        """Note it."""
        self.wanted = dict(wanted)

    async def mind(self) -> None:
        """Nothing dies here."""

    def set_log_level(self, level: str) -> None:
        """Note it."""
        self.level = level

    async def count(self) -> list[Parts]:
        """Nothing is counted here."""
        return []

    def leave(self) -> None:
        """Nobody is left."""

    async def stop(self) -> None:
        """Choose no more."""
        self.wanted = {}


class InMemoryWorkers:
    """The data side: `userproxy.control.sides.Workers`.

    Args:
        journal: where it notes what it is told.

    Attributes:
        occupied: host ports that something else on the node has.
        unopenable: by Service port, the errno with which its listener cannot be opened.
        lagging: Service ports of which a worker fails to take over new backends.
        parts: what it answers when asked for its counts.
        rows: its connections.
        recollection: those that are over too.
        living: what living workers have counted, by pid.
        past: what workers have counted that are gone.
        known: what it was told of earlier workers at the start.
        start_error: why no worker can be started.
        drained: resolved by the test, where a drain is to take its time.
        hearts: by which they say that they accept clients.
        outages: the backends that they have found down.
    """

    def __init__(self, journal: list[str]) -> None:
        self.occupied: set[int] = set()
        self.unopenable: dict[ServicePortName, int] = {}
        self.lagging: set[ServicePortName] = set()
        self.parts: list[Parts] = []
        self.rows: list[ConnectionRow] = []
        self.recollection = InMemoryRecollection()
        self.living: dict[int, Counters] = {}
        self.past = Counters()
        self.known: Mapping[int, Counters] | None = None
        self.start_error: Exception | None = None
        self.drained: asyncio.Future[int] | None = None
        self.hearts = InMemoryHearts(journal)
        self.outages = Outages()
        self._journal = journal
        self._serves: dict[PoolName, Serve] = {}
        self._behind: set[PoolName] = set()
        self._misses: asyncio.Queue[PoolName] = asyncio.Queue()

    @property
    def serves(self) -> dict[PoolName, Serve]:
        """Of `Workers`."""
        return dict(self._serves)

    @property
    def behind(self) -> frozenset[PoolName]:
        """Of `Workers`."""
        return frozenset(self._behind)

    @property
    def living_counters(self) -> dict[int, Counters]:
        """Of `Workers`."""
        return dict(self.living)

    @property
    def past_counters(self) -> Counters:
        """Of `Workers`."""
        return self.past

    @property
    def pids(self) -> tuple[int, ...]:
        """Of `Workers`."""
        return (7, 8)

    async def start(self, known: Mapping[int, Counters] | None = None) -> None:
        """Of `Workers`."""
        self._journal.append("workers start")
        self.known = known
        if self.start_error is not None:
            raise self.start_error

    async def mind(self, fell_behind: Callable[[], object]) -> None:
        """Of `Workers`."""
        while True:
            self._behind.add(await self._misses.get())
            fell_behind()

    def miss(self, name: PoolName) -> None:
        """A worker that takes the place of another one fails to take over a Service port."""
        self._misses.put_nowait(name)

    async def serve(self, serves: Iterable[Serve]) -> dict[PoolName, OSError]:
        """Of `Workers`."""
        failures: dict[PoolName, OSError] = {}
        for serve in serves:
            name, known = serve.name, self._serves.get(serve.name)
            is_open = known is not None and known.listener == serve.listener
            number = 0 if is_open else self._obstacle(serve)
            self._journal.append(f"serve {name} on {serve.listener.port}{' fails' if number else ''}")
            if number:
                failures[name] = OSError(number, os.strerror(number))
                continue
            self._serves[name] = serve
            self._behind.discard(name)
            if is_open and serve.service in self.lagging:
                self._behind.add(name)
        return failures

    def _obstacle(self, serve: Serve) -> int:
        if serve.listener.port in self.occupied:
            return errno.EADDRINUSE
        return self.unopenable.get(serve.service, 0)

    async def close(self, names: Sequence[PoolName]) -> None:
        """Of `Workers`."""
        for name in names:
            self._journal.append(f"close {name}")
            self._serves.pop(name, None)
            self._behind.discard(name)

    async def connections(self, wanted: ConnectionFilter) -> AsyncIterator[list[ConnectionRow]]:
        """Of `Workers`; it leaves the filter to others."""
        del wanted
        yield self.rows

    def set_log_level(self, level: str) -> None:
        """Of `Workers`."""
        self._journal.append(f"log level {level}")

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter) -> int:
        """Of `Workers`."""
        self._journal.append(f"kill {'all' if ids is None else ' '.join(ids)} of {bool(wanted)}")
        return len(self.rows) if ids is None else len(ids)

    async def count(self) -> list[Parts]:
        """Of `Workers`."""
        return self.parts

    async def drain(self, seconds: float) -> int:
        """Of `Workers`."""
        self._journal.append(f"drain for {seconds:g} s")
        return 0 if self.drained is None else await self.drained

    def end_drain(self) -> None:
        """Of `Workers`."""
        self._journal.append("end_drain")
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(1)

    def leave(self) -> None:
        """Of `Workers`."""
        self._journal.append("leave the workers")


class InMemoryKernel:
    """What netfilter captures: `userproxy.control.sides.Kernel`.

    Args:
        journal: where it notes what it is told.

    Attributes:
        adopted: what an earlier daemon left.
        captures: what it captures now.
        guards: the listeners that it guards now.
        errors: by the name of a call, what it raises.
        kept: the pods that clients keep.
        in_use: frontends of which a new connection was sent to a pod lately.
        changes: what somebody else has changed, told at the next repair.
        bypasses: who takes connections before us.
        repairs: how many there were.
        is_clean: it was told to leave no trace.
        workers: how many accept clients at listeners.
        beating: the workers whose hearts it hears.
        owned: nobody else can change its table.
        can_queue: packets can wait for a steering process.
        can_limit: a connection too many can be refused.
        owner: the socket that can.
        silent: connections, by number, that cannot be ended.
    """

    def __init__(self, journal: list[str]) -> None:
        self.adopted = NodeState()
        self.captures: dict[Frontend, Target] = {}
        self.guards: set[Frontend] = set()
        self.errors: dict[str, Exception] = {}
        self.kept: list[Kept] = []
        self.in_use: set[Frontend] = set()
        self.changes: tuple[str, ...] = ()
        self.bypasses: dict[Frontend, Taker] = {}
        self.repairs = 0
        self.is_clean = False
        self.workers = 0
        self.beating: set[int] = set()
        self.owned = True
        self.can_queue = True
        self.can_limit = True
        self.owner: socket.socket | None = None
        self.silent: frozenset[int] = frozenset()
        self._journal = journal

    async def give(self) -> socket.socket | None:
        """Of `Kernel`."""
        return self.owner

    async def start(self) -> NodeState:
        """Of `Kernel`."""
        self._note("kernel start", "start")
        self.captures = dict(self.adopted.captures)
        self.guards = set(self.adopted.guards)
        self.workers = self.adopted.workers
        return self.adopted

    async def apply(self, change: CaptureChange) -> None:
        """Of `Kernel`: all of it, or nothing."""
        kinds = Counter("refuse" if target == Refuse() else "capture" for target in change.put.values())
        told = [f"{kind} {kinds[kind]}" for kind in ("capture", "refuse") if kinds[kind]]
        told += [f"uncapture {len(change.remove)}"] if change.remove else []
        told += ["open to the pods"] if change.workers == 0 else []
        self._note(", ".join(told) or "guard", "apply")
        self.workers = self.workers if change.workers is None else change.workers
        self.captures.update(change.put)
        for frontend in change.remove:
            del self.captures[frontend]
        self.guards |= change.guard
        self.guards -= change.unguard

    async def move(self, host_ips: Collection[str]) -> None:
        """Of `Kernel`."""
        self._note(f"move to {', '.join(host_ips) or 'nowhere'}", "move")

    async def forget_redirected(self, listeners: Collection[Address]) -> None:
        """Of `Kernel`."""
        self._note(f"forget {', '.join(sorted(map(str, listeners)))}", "forget_redirected")

    async def forget(self, frontends: Mapping[Frontend, Collection[Address]]) -> None:
        """Of `Kernel`."""
        self._note(f"forget flows of {len(frontends)}", "forget")

    async def end(self, flows: Collection[Flow]) -> Ended:
        """Of `Kernel`: all are ended, but for those in `silent`."""
        self._note(f"end {' '.join(str(each.id) for each in flows)}", "end")
        numbers = frozenset(each.id for each in flows)
        return Ended(numbers - self.silent, untouched=numbers & self.silent)

    async def alive(self) -> frozenset[int]:
        """Of `Kernel`."""
        return frozenset(self.beating)

    async def pins(self) -> list[Kept]:
        """Of `Kernel`."""
        self._note("", "pins")
        return self.kept

    async def used(self) -> set[Frontend]:
        """Of `Kernel`."""
        return self.in_use

    async def repair(self) -> tuple[str, ...]:
        """Of `Kernel`."""
        self.repairs += 1
        if "repair" in self.errors:
            raise self.errors["repair"]
        changes, self.changes = self.changes, ()
        return changes

    async def bypassed(self) -> dict[Frontend, Taker]:
        """Of `Kernel`."""
        return self.bypasses

    async def remove(self) -> None:
        """Of `Kernel`."""
        self._note("remove every trace", "remove")
        self.is_clean = True

    def _note(self, line: str, call: str) -> None:
        self._journal.append(line if call not in self.errors else f"{line} fails")
        if call in self.errors:
            raise self.errors[call]
