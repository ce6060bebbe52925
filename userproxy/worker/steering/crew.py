"""The steering process, as the control side sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.model import messages
from userproxy.model.heartbeat import TIMEOUT_SECONDS
from userproxy.model.messages import ReadQueue, YieldQueue
from userproxy.worker.counted import Counted
from userproxy.worker.handle import Callbacks, OrderFailedError, WorkerGoneError, WorkerHandle
from userproxy.worker.log_file import LogFile
from userproxy.worker.origin import Origin, processes
from userproxy.worker.recollection import Recollection
from userproxy.worker.steering.legacy import Legacy, as_orders
from userproxy.worker.telling import chunks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from userproxy.model.counters import Counters
    from userproxy.model.endings import Reason
    from userproxy.model.service import PoolName
    from userproxy.model.state import Steer

log = structlog.get_logger("userproxy.steering")

PREFIX = "userproxy-steering-"
"""How the names of steering processes' rendezvous sockets begin."""

MODULE = "userproxy.worker.steering.process"

_RESPAWN_SECONDS = 0.5
_LOOK_SECONDS = 1.0
# One that does not answer within this time is stopped, or worse: packets wait for it, and clients with them.
# The pause between two looks included, that is as long as a worker may be silent (`model.heartbeat`).
_SILENCE_SECONDS = TIMEOUT_SECONDS - _LOOK_SECONDS
_PATIENCE_SECONDS = 2.0


def steering_processes() -> Origin:
    """Processes of their own in this network namespace."""
    return processes(PREFIX, MODULE)


class Crew:
    """Starts a steering process when a Service is steered first, and tells it what to choose from.

    Args:
        begin: how it is to work.
        origin: where it comes from.

    Attributes:
        on_need: called with the name of a pool that clients wait for, from time to time while they do.
        recollection: what is known of connections that are over.
        bequeath: called with what the last process has remembered of connections that are over.
        recall: tells where the rules have sent clients, while nobody chose.
    """

    def __init__(self, begin: messages.BeginSteering, origin: Origin) -> None:
        self.on_need: Callable[[PoolName], object] | None = None
        self.bequeath: Callable[[list[bytes]], object] | None = None
        self.recall: Callable[[], Awaitable[Iterable[messages.Pins]]] | None = None
        self._begin = begin
        self._origin = origin
        self._wanted: dict[PoolName, Steer] = {}
        self._told: dict[PoolName, Steer] = {}
        self._handle: WorkerHandle | None = None
        self._counted = Counted()
        self._lock = asyncio.Lock()
        self._legacy = Legacy(asyncio.get_running_loop().time)
        self.recollection = Recollection(self._handles, self._handles)
        self._log_file: LogFile | None = None
        self._callbacks = Callbacks(
            gone=self._on_gone,
            leaving=lambda _: None,
            pinned=self._on_told,
            judged=self._on_told,
            need_pods=self._need_pods,
            left=self.recollection.pass_on,
        )

    @property
    def living_counters(self) -> dict[int, Counters]:
        """What the process that lives has counted when it last said so."""
        return self._counted.living(self._handles())

    @property
    def past_counters(self) -> Counters:
        """What processes have counted that are gone."""
        return self._counted.past

    @property
    def pids(self) -> tuple[int, ...]:
        """Its process, if it can be seen from here."""
        return tuple(handle.pid for handle in self._handles() if handle.is_visible)

    async def steer(self, wanted: Mapping[PoolName, Steer]) -> None:
        """Have these chosen for, and no others: returns when it is so, or when nobody can be asked.

        A process is started with the first. Those that an earlier control side left are replaced by one of
        this version, which goes on with their queue.
        """
        self._wanted = dict(wanted)
        async with self._lock:
            await self._bring_up()

    async def mind(self) -> None:
        """Replace a process that dies, or does not answer, until cancelled.

        Once nothing is steered, and nothing lives that was, it goes.
        """
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            handle = self._handle
            is_idle = False
            if handle is not None:
                try:
                    is_idle = _is_idle(await handle.ask(messages.Count(), seconds=_SILENCE_SECONDS))
                except WorkerGoneError:
                    log.error("the steering process does not answer, and is replaced", pid=handle.pid)  # noqa: TRY400
                    handle.kill()
                    await asyncio.sleep(_RESPAWN_SECONDS)
                except OrderFailedError:
                    pass
            async with self._lock:
                if self._wanted:
                    await self._bring_up()
                elif is_idle:
                    await self._dismiss()

    def set_log_level(self, level: str) -> None:
        """Have the process, and those to come, log from this severity on."""
        self._begin = msgspec.structs.replace(self._begin, log_level=level)
        for handle in self._handles():
            handle.tell(messages.SetLogLevel(level=level))

    async def count(self) -> list[messages.Parts]:
        """`ServiceCounts` and `Totals`, if there is a process and it answers."""
        handle = self._handle
        if handle is None:
            return []
        with contextlib.suppress(WorkerGoneError, OrderFailedError):
            return await handle.ask(messages.Count(), seconds=_PATIENCE_SECONDS)
        return []

    async def expect(self, flows: Collection[bytes], reason: Reason | None) -> None:
        """These connections are about to be ended, for this reason; None: they are not, after all."""
        for handle in self._handles():
            with contextlib.suppress(WorkerGoneError, OrderFailedError):
                for part in chunks(sorted(flows)):
                    order = messages.Ending(flows=tuple(part), reason=reason)
                    await handle.ask(order, seconds=_PATIENCE_SECONDS)

    def leave(self) -> None:
        """Leave it to itself: it goes on until somebody takes over."""
        self._close_log()
        for handle in self._handles():
            handle.retiring = True
            handle.leave()
        self._handle = None
        self._wanted = {}

    async def stop(self) -> None:
        """End it: the rules choose."""
        self._close_log()
        self._wanted = {}
        async with self._lock:
            await self._dismiss()

    async def _bring_up(self) -> None:
        try:
            if self._handle is None:
                await self._begin_anew()
            if self._handle is not None:
                await self._tell(self._handle)
        except (WorkerGoneError, OrderFailedError, OSError) as error:
            log.error("nobody chooses for steered connections: the rules do", error=str(error))  # noqa: TRY400

    async def _begin_anew(self) -> None:
        """Take over from an earlier process, or start the first one.

        Packets wait from when the earlier one gives up its queue, so by then the next one knows all that
        there is to know, but for what the earlier one has learned since it was asked.
        """
        earlier = [WorkerHandle(visit, pid, self._callbacks) for visit, pid in self._origin.find()]
        if not self._wanted:
            await self._succeed(earlier)
            return
        try:
            heir = await self._hire()
            earlier = await self._prepare(heir, earlier)
        except BaseException:
            for handle in earlier:  # they go on
                handle.retiring = True
                handle.leave()
            raise
        queues, told = await self._succeed(earlier, YieldQueue())
        self._legacy.take(told)
        try:
            for order in as_orders(told):
                heir.tell(order)
            await heir.ask(ReadQueue(), queues[:1])
        except BaseException:
            _end(heir)
            raise
        finally:
            for queue in queues:
                os.close(queue)
        self._handle = heir
        self._give_log(heir)
        self.recollection.settle()
        log.info(
            "a steering process has begun", pid=heir.pid, queue=self._begin.queue, inherited=bool(queues)
        )

    def _give_log(self, handle: WorkerHandle) -> None:
        """Have a process write the access log; the file is opened for the first one."""
        if self._log_file is None:
            self._log_file = LogFile(self._begin.access_log_file, asyncio.get_running_loop(), self._handles)
        else:
            self._log_file.give(handle)

    def _close_log(self) -> None:
        if self._log_file is not None:
            self._log_file.close()

    async def _hire(self) -> WorkerHandle:
        """One that waits for its first order."""
        handle = WorkerHandle(*self._origin.start(), self._callbacks)
        try:
            await handle.ready()
        except BaseException:
            _end(handle)
            raise
        return handle

    async def _prepare(self, heir: WorkerHandle, earlier: list[WorkerHandle]) -> list[WorkerHandle]:
        """Have it know what to choose from, and what earlier ones have learned of that.

        Returns:
            Those among the earlier ones that answer. Another one is ended: it would keep the queue, with the
            packets that wait there.
        """
        try:
            answering = [handle for handle in earlier if await self._consult(handle)]
            await heir.ask(self._begin)
            self._told = {}
            await self._tell(heir)
            if self.recall is not None:
                self._legacy.take(await self.recall())
            for order in self._legacy.orders():
                heir.tell(order)
        except BaseException:
            _end(heir)
            raise
        return answering

    async def _consult(self, handle: WorkerHandle) -> bool:
        with contextlib.suppress(OrderFailedError):
            try:
                await handle.ready(_PATIENCE_SECONDS)
                self._legacy.take(await handle.ask(messages.ListPins(), seconds=_PATIENCE_SECONDS))
            except WorkerGoneError:
                _end(handle)
                handle.tell(messages.Retire())
                return False
        return True

    @staticmethod
    async def _succeed(
        earlier: list[WorkerHandle], order: YieldQueue | None = None
    ) -> tuple[list[int], list[messages.Parts]]:
        """Have those of an earlier control side go.

        Returns:
            The sockets of the queues that they give up, and what they say last.
        """
        told: list[messages.Parts] = []
        for handle in earlier:
            try:
                await handle.ready(_PATIENCE_SECONDS)
                if order is not None:
                    told += await handle.ask(order, seconds=_PATIENCE_SECONDS)
            except WorkerGoneError:
                handle.kill()  # or it would keep the queue, with the packets that wait there
            except OrderFailedError:
                pass
            handle.retiring = True
            handle.tell(messages.Retire())
        return [handle.queue for handle in earlier if handle.queue >= 0], told

    async def _tell(self, handle: WorkerHandle) -> None:
        changed = [steer for name, steer in self._wanted.items() if self._told.get(name) is not steer]
        stops = [name for name in self._told if name not in self._wanted]
        told = dict(self._wanted)
        self._legacy.forget(stops)
        for names in chunks(stops):
            await handle.ask(messages.SteerPools(stops=tuple(names)))
        for steers in chunks(changed):
            await handle.ask(messages.SteerPools(steers=tuple(steers)))
        self._told = told

    async def _dismiss(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.retiring = True
            with contextlib.suppress(WorkerGoneError, OrderFailedError):
                await handle.ask(messages.Retire(), seconds=_PATIENCE_SECONDS)

    def _handles(self) -> list[WorkerHandle]:
        return [] if self._handle is None else [self._handle]

    def _on_told(self, _handle: WorkerHandle, part: messages.Pins | messages.Judgements) -> None:
        self._legacy.take([part])

    def _need_pods(self, name: PoolName) -> None:
        if self.on_need is not None:
            self.on_need(name)

    def _on_gone(self, handle: WorkerHandle) -> None:
        self._counted.lose(handle)
        left = self.recollection.unclaimed
        if left and not self._wanted and self._handle in (None, handle) and self.bequeath is not None:
            self.recollection.unclaimed = []
            self.bequeath(left)
        if self._handle is handle:
            self._handle = None
            if not handle.retiring:
                log.error(
                    "the steering process has died: the rules choose until it is replaced", pid=handle.pid
                )


def _is_idle(parts: Iterable[messages.Parts]) -> bool:
    return not any(part.connections for part in parts if isinstance(part, messages.Totals))


def _end(handle: WorkerHandle) -> None:
    handle.retiring = True
    handle.kill()
