"""The workers together, as the control side sees them: one data side, whatever their number."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.model import messages
from userproxy.worker import questions
from userproxy.worker.counted import Counted
from userproxy.worker.draining import Draining
from userproxy.worker.handle import Callbacks, OrderFailedError, WorkerGoneError, WorkerHandle, answers_of
from userproxy.worker.hearts import Hearts
from userproxy.worker.heritage import Heritage, is_read_by, is_udp
from userproxy.worker.listeners import Listeners
from userproxy.worker.log_file import LogFile
from userproxy.worker.names import Names
from userproxy.worker.outages import Outages
from userproxy.worker.pins import SharedPins
from userproxy.worker.recollection import Recollection
from userproxy.worker.telling import Teller, chunks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from userproxy.model.counters import Counters
    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.rows import ConnectionRow
    from userproxy.model.service import PoolName
    from userproxy.model.state import Serve
    from userproxy.worker.origin import Origin

log = structlog.get_logger("userproxy.workers")

# A worker that dies is replaced at once; ones that die all the time are not to keep the node busy.
_RESPAWN_SECONDS = 0.5

# What an earlier worker may take to say what it holds.
_ADOPT_SECONDS = 3.0


class WorkerPool:
    """Starts workers, tells all of them what to serve, and asks them what they have.

    Args:
        count: how many workers.
        begin: how they are to work; the index is put in here.
        origin: where they come from.

    Attributes:
        on_need: called with the name of a pool that clients wait for, from time to time while they do.
        hearts: by which the workers say to the kernel that they accept clients.
        outages: the backends that workers have found down.
        recollection: of connections that are over.
    """

    def __init__(self, count: int, begin: messages.Begin, origin: Origin) -> None:
        self._count = count
        self._begin = begin
        self._origin = origin
        self.on_need: Callable[[PoolName], object] | None = None
        self.outages = Outages()
        self.recollection = Recollection(self._everybody, lambda: list(self._handles.values()))
        self._callbacks = Callbacks(
            gone=self._on_gone,
            leaving=self._dismiss,
            pinned=self._on_pinned,
            need_pods=self._on_need,
            outage=self._on_outage,
            left=self.recollection.pass_on,
        )
        self._pins = SharedPins(asyncio.get_running_loop().time)
        self._handles: dict[int, WorkerHandle] = {}
        self.hearts = Hearts(self._handles)
        self._retiring: list[WorkerHandle] = []
        self._draining = Draining()
        self._log_file = LogFile(begin.access_log_file, asyncio.get_running_loop(), self._everybody)
        self._listeners = Listeners()
        self._teller = Teller(self._handles, count, self._listeners, self._dismiss, self.hearts)
        self._heritage = Heritage()
        self._counted = Counted()
        self._names = Names()
        self._behind: set[PoolName] = set()
        self._vacant: asyncio.Queue[int] = asyncio.Queue()
        self._lock = asyncio.Lock()

    @property
    def serves(self) -> dict[PoolName, Serve]:
        """What the workers serve."""
        return dict(self._listeners.serves)

    @property
    def living_counters(self) -> dict[int, Counters]:
        """What the workers that live have counted when they last said so, by name; `count` asks them."""
        return self._counted.living(self._everybody())

    @property
    def past_counters(self) -> Counters:
        """What workers have counted that are gone."""
        return self._counted.past

    @property
    def behind(self) -> frozenset[PoolName]:
        """The Service ports that a worker failed to take over as they are wanted: tell it again."""
        return frozenset(self._behind)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of workers that can be seen from here: not of those in other containers."""
        return tuple(handle.pid for handle in self._everybody() if handle.is_visible)

    async def start(self, known: Mapping[int, Counters] | None = None) -> None:
        """Take over what the workers of an earlier daemon hold, and let new ones serve it.

        Those accept no more from then on, and end with their last connection.

        Args:
            known: what those workers had counted, by name.

        Raises:
            WorkerGoneError: workers do not start; the earlier ones go on.
            OSError: likewise.
        """
        self._retiring = [WorkerHandle(visit, pid, self._callbacks) for visit, pid in self._origin.find()]
        await asyncio.gather(*map(self._adopt, list(self._retiring)))
        self._counted.recall(known or {}, self._retiring)
        await self._recall_pins()
        await self._hire_all()
        await self._give_datagrams(range(self._count))
        self.recollection.settle()
        adopted = [handle for handle in self._retiring if not handle.retiring]
        self.hearts.take_over(adopted)
        for handle in adopted:
            handle.retiring = True
        await asyncio.gather(*(self._teller.order(handle, messages.Retire()) for handle in adopted))
        if adopted:
            log.info(
                "took over from earlier workers", workers=len(adopted), listeners=len(self._listeners.sockets)
            )

    async def mind(self, fell_behind: Callable[[], object]) -> None:
        """Replace workers that die, until cancelled.

        Args:
            fell_behind: called when a new worker has failed to take over something.
        """
        while True:
            index = await self._vacant.get()
            async with self._lock:
                try:
                    await self._hire(index)
                    await self._give_datagrams([index])
                    self.hearts.give(index)
                except (WorkerGoneError, OSError) as error:
                    log.error("a worker could not be replaced", worker=index, error=str(error))  # noqa: TRY400
                    self._vacant.put_nowait(index)
            if self._behind:
                fell_behind()
            await asyncio.sleep(_RESPAWN_SECONDS)

    async def serve(self, serves: Iterable[Serve]) -> dict[PoolName, OSError]:
        """Open listeners, and take over new backends on open ones.

        A worker that fails to take over new backends leaves the Service port `behind`.

        Returns:
            Why listeners could not be opened; the other Service ports are served.
        """
        async with self._lock:
            opened = self._listeners.open(serves)
            # Whoever is behind may lack the listener too.
            parts = chunks(opened.accepted)
            self._teller.inform(self._retiring, (messages.Apply(serves=tuple(part)) for part in parts))
            failed = await self._teller.tell_all(opened.accepted, opened.names | self._behind)
            for sock in opened.former:
                sock.close()
            lost = [name for name in opened.names if name in failed]
            await self._forget(lost)
            self._pins.forget(serve.name for serve in opened.accepted if serve.affinity is None)
            self._behind.difference_update(serve.name for serve in opened.accepted)
            self._behind.update(failed.keys() - opened.names)
        return opened.failures | {name: OSError(errno.EIO, failed[name]) for name in lost}

    async def close(self, names: Sequence[PoolName]) -> None:
        """Stop accepting for these Service ports. Their connections live on."""
        async with self._lock:
            await self._forget([name for name in names if name in self._listeners.serves])

    async def connections(self, wanted: ConnectionFilter) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match, of all workers."""
        async for chunk in questions.connections(self._everybody(), wanted):
            yield chunk

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter) -> int:
        """Reset connections.

        Args:
            ids: of the connections to reset, whichever the filter leaves of them; None for all.
            wanted: what they must have.

        Returns:
            How many there were.
        """
        return await questions.kill(self._everybody(), ids, wanted)

    def set_log_level(self, level: str) -> None:
        """Have all workers, those to come included, log from this severity on."""
        self._begin = msgspec.structs.replace(self._begin, log_level=level)
        for handle in self._everybody():
            handle.tell(messages.SetLogLevel(level=level))

    async def count(self) -> list[messages.Parts]:
        """`ServiceCounts` and `Totals` of all workers; those that do not answer are missing.

        It brings `living_counters` up to date.
        """
        answers = await answers_of(self._everybody(), lambda handle: handle.ask(messages.Count()))
        return [part for parts in answers for part in parts]

    async def drain(self, seconds: float) -> int:
        """Stop accepting, give connections this time, and end all workers.

        Returns:
            How many connections were reset when it was over.
        """
        self._listeners.close()
        self.hearts.close()
        cut = await self._draining.run(self._everybody(), seconds)
        self._log_file.close()
        return cut

    def end_drain(self) -> None:
        """Have the workers give their connections no more time, now or as soon as `drain` is called."""
        self._draining.hurry(self._everybody())

    def leave(self) -> None:
        """Leave the workers to themselves: they go on until somebody takes over."""
        for handle in self._everybody():
            handle.retiring = True
            handle.leave()
        self._log_file.close()
        self._listeners.close()
        self.hearts.close()

    def _everybody(self) -> list[WorkerHandle]:
        return [*self._handles.values(), *self._retiring]

    async def _adopt(self, handle: WorkerHandle) -> None:
        try:
            await handle.ready(_ADOPT_SECONDS)
        except WorkerGoneError:
            if handle.is_alive:
                log.warning("an earlier worker does not answer: its ports cannot be had", pid=handle.pid)
                handle.retiring = True
                handle.tell(messages.Retire())
            return
        for serve, fd in handle.held:
            self._listeners.adopt(serve, fd)
        handle.held.clear()

    async def _recall_pins(self) -> None:
        """Take over where clients are pinned to."""
        if any(serve.affinity is not None for serve in self._listeners.serves.values()):
            answers = await answers_of(self._retiring, lambda handle: handle.ask(messages.ListPins()))
            for parts in answers:
                self._pins.take(part for part in parts if isinstance(part, messages.Pins))

    async def _hire_all(self) -> None:
        hires = (self._hire(index) for index in range(self._count))
        for outcome in await asyncio.gather(*hires, return_exceptions=True):
            if isinstance(outcome, BaseException):
                for handle in self._handles.values():
                    handle.retiring = True
                    handle.kill()
                raise outcome

    async def _hire(self, index: int) -> None:
        handle = WorkerHandle(*self._origin.start(), self._callbacks)
        try:
            await handle.ready()
            handle.name = self._names.new(handle.pid, self._everybody())
            place = {"index": index, "workers": self._count, "name": handle.name}
            await handle.ask(msgspec.structs.replace(self._begin, **place))
        except OrderFailedError as error:
            handle.kill()
            raise WorkerGoneError(f"worker {handle.pid} cannot begin: {error}") from None
        except BaseException:
            handle.kill()
            raise
        self._handles[index] = handle
        self._log_file.give(handle)
        await self._bring_up(handle, [one for one in self._listeners.serves.values() if not is_udp(one)])

    async def _give_datagrams(self, indices: Iterable[int]) -> None:
        """Have these workers read their UDP listeners, and go on with the sessions of those that retire."""
        serves = [one for one in self._listeners.serves.values() if is_udp(one)]
        if not serves:
            return
        await self._heritage.collect([one for one in self._retiring if one.is_alive and not one.is_silent])
        for index in indices:
            handle = self._handles.get(index)
            if handle is not None:
                mine = [one for one in serves if is_read_by(one, index, self._count)]
                self._heritage.give(handle, [one.name for one in mine])
                await self._bring_up(handle, mine)
        self._heritage.close()

    async def _bring_up(self, handle: WorkerHandle, serves: Sequence[Serve]) -> None:
        """Tell a new worker of listeners that are open already."""
        names = frozenset(serve.name for serve in serves)
        self._behind.update(await self._teller.tell(handle, serves, names))
        for order in self._pins.all():
            if order.pool in names:
                handle.tell(order)

    async def _forget(self, names: Sequence[PoolName]) -> None:
        for part in chunks(names):
            order = messages.Apply(closes=tuple(part))
            self._teller.inform(self._retiring, [order])
            await asyncio.gather(
                *(self._teller.order(handle, order) for handle in list(self._handles.values()))
            )
        self._behind.difference_update(names)
        self._pins.forget(names)
        self._listeners.discard(names)

    def _dismiss(self, handle: WorkerHandle) -> None:
        """Have somebody else do its work; it ends with its last connection, once it can."""
        for index, known in list(self._handles.items()):
            if known is handle and not handle.retiring:
                del self._handles[index]
                self._retiring.append(handle)
                handle.retiring = True
                handle.tell(messages.Retire())
                self._counted.replace()
                self.hearts.silence(index)
                self.outages.lose(handle)
                log.warning("a worker is replaced", worker=index, pid=handle.pid)
                self._vacant.put_nowait(index)

    def _on_pinned(self, handle: WorkerHandle, part: messages.Pins) -> None:
        """Let the other workers know: one of them may accept the client's next connection."""
        self._pins.take([part])
        for other in self._handles.values():
            if other is not handle:
                other.tell(messages.LearnPins(pool=part.pool, pins=part.pins))

    def _on_outage(self, handle: WorkerHandle, part: messages.Outage) -> None:
        if handle in self._handles.values():
            self.outages.take(handle, part)

    def _on_need(self, name: PoolName) -> None:
        if self.on_need is not None:
            self.on_need(name)

    def _on_gone(self, handle: WorkerHandle) -> None:
        self._counted.lose(handle)
        self.outages.lose(handle)
        if handle in self._retiring:
            self._retiring.remove(handle)
        for index, known in list(self._handles.items()):
            if known is handle:
                del self._handles[index]
                if not handle.retiring:
                    self.hearts.silence(index)
                    log.error("a worker has died, and is replaced", worker=index, pid=handle.pid)
                    self._vacant.put_nowait(index)
