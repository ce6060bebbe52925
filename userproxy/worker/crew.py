"""The workers together, as the control side sees them: one data side, whatever their number."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.dataplane.tcp.listener import listen
from userproxy.model import messages
from userproxy.worker import door
from userproxy.worker.channel import MAX_FDS
from userproxy.worker.member import (
    Callbacks,
    Member,
    OrderFailedError,
    WorkerGoneError,
    reap_strays,
    start_worker,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.plan import Serve
    from userproxy.model.rows import ConnectionRow
    from userproxy.model.service import ServicePortName

log = structlog.get_logger("userproxy.workers")

# A worker that dies is replaced at once; ones that die all the time are not to keep the node busy.
_RESPAWN_SECONDS = 0.5

# What an earlier worker may take to say what it holds, and any worker to end when it is urgent.
_ADOPT_SECONDS = 3.0
_HURRY_SECONDS = 5.0

# Service ports in one message; each may bring a listening socket.
_CHUNK = min(100, MAX_FDS)

# More than the number of a connection has.
_DIGITS = 19


class Crew:
    """Starts workers, tells all of them what to serve, and asks them what they have.

    It holds every listening socket too: a worker that takes the place of a dead one gets them from here, so
    that none is ever closed in between, and no client is refused.

    Args:
        count: how many workers.
        begin: how they are to work; the index is put in here.
        prefix: of the names of the workers' doors. Crews with different ones do not see each other's.
    """

    def __init__(self, count: int, begin: messages.Begin, prefix: str = door.PREFIX) -> None:
        self._count = count
        self._begin = begin
        self._prefix = prefix
        self._callbacks = Callbacks(gone=self._on_gone, leaving=self._dismiss)
        self._members: dict[int, Member] = {}
        self._retiring: list[Member] = []
        self._serves: dict[ServicePortName, Serve] = {}
        self._sockets: dict[ServicePortName, socket.socket] = {}
        self._vacant: asyncio.Queue[int] = asyncio.Queue()
        self._lock = asyncio.Lock()

    @property
    def serves(self) -> dict[ServicePortName, Serve]:
        """What the workers serve."""
        return dict(self._serves)

    async def start(self) -> None:
        """Take over what the workers of an earlier daemon hold, and let new ones serve it.

        Those accept no more from then on, and end with their last connection.

        Raises:
            WorkerGoneError: workers do not start; the earlier ones go on.
            OSError: likewise.
        """
        reap_strays()
        self._retiring = [
            Member(visit, pid, self._callbacks) for visit, pid in door.knock_everywhere(self._prefix)
        ]
        await asyncio.gather(*map(self._adopt, list(self._retiring)))
        await self._hire_all()
        adopted = [member for member in self._retiring if not member.retiring]
        for member in adopted:
            member.retiring = True
        await asyncio.gather(*(self._order(member, messages.Retire()) for member in adopted))
        if adopted:
            log.info("took over from earlier workers", workers=len(adopted), listeners=len(self._sockets))

    async def mind(self) -> None:
        """Replace workers that die, until cancelled."""
        while True:
            index = await self._vacant.get()
            async with self._lock:
                try:
                    await self._hire(index)
                except (WorkerGoneError, OSError) as error:
                    log.error("a worker could not be replaced", worker=index, error=str(error))  # noqa: TRY400
                    self._vacant.put_nowait(index)
            await asyncio.sleep(_RESPAWN_SECONDS)

    async def serve(self, serves: Iterable[Serve]) -> dict[ServicePortName, OSError]:
        """Open listeners, and take over new backends on open ones.

        Returns:
            Why listeners could not be opened; the other Service ports are served.
        """
        failures: dict[ServicePortName, OSError] = {}
        async with self._lock:
            accepted = []
            opened: dict[ServicePortName, socket.socket] = {}
            for serve in serves:
                known = self._serves.get(serve.service)
                if known is None or known.listener != serve.listener:
                    try:
                        opened[serve.service] = _listen(serve)
                    except OSError as error:
                        failures[serve.service] = error
                        continue
                accepted.append(serve)
            former = [self._sockets[name] for name in opened if name in self._sockets]
            self._sockets |= opened
            self._serves |= {serve.service: serve for serve in accepted}
            failed = await self._tell_all(accepted, opened.keys())
            for sock in former:
                sock.close()
            lost = [name for name in opened if name in failed]
            await self._forget(lost)
        return failures | {name: OSError(errno.EIO, failed[name]) for name in lost}

    async def close(self, names: Sequence[ServicePortName]) -> None:
        """Stop accepting for these Service ports. Their connections live on."""
        async with self._lock:
            await self._forget([name for name in names if name in self._serves])

    async def connections(self, wanted: ConnectionFilter) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match, of all workers."""
        for member in self._everybody():
            try:
                parts = await member.ask(messages.ListConnections(wanted=wanted))
            except (WorkerGoneError, OrderFailedError) as error:
                log.warning("connections are missing from a listing", reason=str(error))
                continue
            for part in parts:
                if isinstance(part, messages.Connections):
                    yield [_named(row, member) for row in part.rows]

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter) -> int:
        """Reset connections.

        Args:
            ids: of the connections to reset, whichever the filter leaves of them; None for all.
            wanted: what they must have.

        Returns:
            How many there were.
        """
        chosen = None if ids is None else frozenset(ids)
        count = 0
        for member in self._everybody():
            numbers = None if chosen is None else _numbers(chosen, member)
            if numbers is None or numbers:
                with contextlib.suppress(WorkerGoneError, OrderFailedError):  # its connections went with it
                    parts = await member.ask(messages.Kill(numbers=numbers, wanted=wanted))
                    count += sum(part.count for part in parts if isinstance(part, messages.Killed))
        return count

    async def count(self) -> list[messages.Parts]:
        """`ServiceCounts` and `Totals` of all workers; those that do not answer are missing."""
        answers = await self._gather(self._everybody(), lambda member: member.ask(messages.Count()))
        return [part for parts in answers for part in parts]

    async def drain(self, seconds: float) -> int:
        """Stop accepting, give connections this time, and end all workers.

        Returns:
            How many connections were reset when it was over.
        """
        everybody = self._everybody()
        for member in everybody:
            member.retiring = True
        for sock in self._sockets.values():
            sock.close()
        order = messages.Drain(seconds=seconds)
        answers = await self._gather(
            everybody, lambda member: member.ask(order, seconds=seconds + _HURRY_SECONDS)
        )
        for member in everybody:
            member.kill()  # it has answered, or never will
            member.leave()
        return sum(part.cut for parts in answers for part in parts if isinstance(part, messages.Drained))

    def hurry(self) -> None:
        """Have the workers give their connections no more time."""
        for member in self._everybody():
            member.retiring = True
            member.tell(messages.Drain(seconds=0))
            asyncio.get_running_loop().call_later(_HURRY_SECONDS, member.kill)

    def leave(self) -> None:
        """Leave the workers to themselves: they go on until somebody takes over."""
        for member in self._everybody():
            member.retiring = True
            member.leave()
        for sock in self._sockets.values():
            sock.close()

    def _everybody(self) -> list[Member]:
        return [*self._members.values(), *self._retiring]

    async def _adopt(self, member: Member) -> None:
        try:
            await member.ready(_ADOPT_SECONDS)
        except WorkerGoneError:
            if member.is_alive:
                log.warning("an earlier worker does not answer: its ports cannot be had", pid=member.pid)
                member.retiring = True
                member.tell(messages.Retire())
            return
        for serve, fd in member.held:
            sock = socket.socket(fileno=fd)
            if serve.service in self._sockets:
                sock.close()
            else:
                self._sockets[serve.service] = sock
                self._serves[serve.service] = serve
        member.held.clear()

    async def _hire_all(self) -> None:
        hires = (self._hire(index) for index in range(self._count))
        for outcome in await asyncio.gather(*hires, return_exceptions=True):
            if isinstance(outcome, BaseException):
                for member in self._members.values():
                    member.retiring = True
                    member.kill()
                raise outcome

    async def _hire(self, index: int) -> None:
        member = Member(*start_worker(self._prefix), self._callbacks)
        try:
            await member.ready()
            await member.ask(msgspec.structs.replace(self._begin, index=index, workers=self._count))
        except BaseException:
            member.kill()
            raise
        self._members[index] = member
        await self._tell(member, list(self._serves.values()), self._sockets.keys())

    async def _forget(self, names: Sequence[ServicePortName]) -> None:
        for start in range(0, len(names), _CHUNK):
            order = messages.Apply(closes=tuple(names[start : start + _CHUNK]))
            await asyncio.gather(*(self._order(member, order) for member in list(self._members.values())))
        for name in names:
            del self._serves[name]
            self._sockets.pop(name).close()

    async def _tell_all(
        self, serves: Sequence[Serve], opened: Iterable[ServicePortName]
    ) -> dict[ServicePortName, str]:
        names = frozenset(opened)
        members = list(self._members.values())
        failures = await asyncio.gather(*(self._tell(member, serves, names) for member in members))
        return {name: why for failed in failures for name, why in failed.items()}

    async def _tell(
        self, member: Member, serves: Sequence[Serve], opened: Iterable[ServicePortName]
    ) -> dict[ServicePortName, str]:
        """Tell a worker what to serve; returns what it failed at, and why."""
        names = frozenset(opened)
        failed: dict[ServicePortName, str] = {}
        for start in range(0, len(serves), _CHUNK):
            part = serves[start : start + _CHUNK]
            opens = tuple(serve.service for serve in part if serve.service in names)
            fds = [self._sockets[name].fileno() for name in opens]
            why = await self._order(member, messages.Apply(serves=tuple(part), opens=opens), fds)
            if not member.is_alive or member.retiring:
                break
            if why:
                failed |= dict.fromkeys((serve.service for serve in part), why)
        return failed

    async def _order(self, member: Member, order: messages.Orders, fds: Sequence[int] = ()) -> str:
        """Have an order carried out; returns why it was not. A worker that misses one is replaced."""
        try:
            await member.ask(order, fds)
        except WorkerGoneError as error:
            log.error("a worker missed an order", reason=str(error))  # noqa: TRY400 - it is being replaced
            self._dismiss(member)
        except (OrderFailedError, OSError) as error:
            return str(error)
        return ""

    async def _gather(
        self,
        members: Sequence[Member],
        ask: Callable[[Member], Awaitable[list[messages.Parts]]],
    ) -> list[list[messages.Parts]]:
        answers = await asyncio.gather(*(ask(member) for member in members), return_exceptions=True)
        found = []
        for answer in answers:
            if isinstance(answer, WorkerGoneError | OrderFailedError):
                log.warning("a worker did not answer", reason=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.append(answer)
        return found

    def _dismiss(self, member: Member) -> None:
        """Have somebody else do its work; it ends with its last connection, once it can."""
        for index, known in list(self._members.items()):
            if known is member and not member.retiring:
                del self._members[index]
                self._retiring.append(member)
                member.retiring = True
                member.tell(messages.Retire())
                log.warning("a worker is replaced", worker=index, pid=member.pid)
                self._vacant.put_nowait(index)

    def _on_gone(self, member: Member) -> None:
        if member in self._retiring:
            self._retiring.remove(member)
        for index, known in list(self._members.items()):
            if known is member:
                del self._members[index]
                if not member.retiring:
                    log.error("a worker has died, and is replaced", worker=index, pid=member.pid)
                    self._vacant.put_nowait(index)


def _listen(serve: Serve) -> socket.socket:
    return socket.socket(fileno=listen(serve.listener).detach())


def _numbers(ids: Iterable[str], member: Member) -> tuple[int, ...]:
    """Those of the ids that name connections of this worker, as it calls them itself."""
    split = (one.split("-", 1) for one in ids if one.count("-") == 1)
    return tuple(int(number) for pid, number in split if pid == str(member.pid) and _is_number(number))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS


def _named(row: ConnectionRow, member: Member) -> ConnectionRow:
    return msgspec.structs.replace(row, id=f"{member.pid}-{row.id}")
