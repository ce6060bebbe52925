"""The connections that the kernel carries to pods by itself, as an operator sees them.

Nobody tells of these connections, so conntrack is read when somebody asks; for mere counts at most once a
second, and not at all as long as no Service has gone this path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.model.connection_id import KERNEL_PREFIX
from userproxy.model.filter import ConnectionFilter, is_service
from userproxy.model.rows import ConnectionRow
from userproxy.model.service import Path, Protocol
from userproxy.model.state import Frontend, NodeState, ToListener, ToPods
from userproxy.model.versioned import touched
from userproxy.netfilter import NetfilterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Container, Iterable, Mapping

    from userproxy.model.address import Address
    from userproxy.model.service import PoolName, ServicePortName
    from userproxy.netfilter.conntrack.flows import Flow

log = structlog.get_logger(__name__)

_CHUNK = 100
_FRESH_SECONDS = 1.0
_DRAIN_TICK = 0.5
_ALL = ConnectionFilter()


class FlowTable:
    """The kernel's connections to our frontends. Lives as long as the daemon.

    Args:
        read: reads the translated connections, to some frontends or to all.
        clock: seconds since the epoch.

    Attributes:
        live: how many there were at the last count.
        services: likewise, by Service port.
        backends: likewise, by Service port and pod.
        error: why they could not be read; empty if they could.
    """

    def __init__(
        self,
        read: Callable[[Collection[Frontend]], Awaitable[list[Flow]]],
        clock: Callable[[], float],
    ) -> None:
        self.live = 0
        self.services: Counter[ServicePortName] = Counter()
        self.backends: Counter[tuple[ServicePortName, Address]] = Counter()
        self.error = ""
        self._read = read
        self._clock = clock
        self._state = NodeState()
        self._listeners: set[Frontend] = set()  # that are or were ours: a connection outlives its listener
        self._in_use = False
        self._counted_at = 0.0
        self._hurried = asyncio.Event()

    def observe(self, state: NodeState) -> None:
        """Take in the state that was applied. Cheap: only what differs from the last one is looked at."""
        if not self._in_use:  # a Service that goes another path later on still has connections on this one
            changed = touched(state.captures, self._state.captures)
            self._in_use = any(isinstance(state.captures[key], ToPods) for key in changed)
        self._listeners.update(touched(state.guards, self._state.guards))
        self._state = state

    async def count(self) -> None:
        """Bring the counts up to date, unless they are younger than a second."""
        if not self._in_use or abs(self._clock() - self._counted_at) < _FRESH_SECONDS:
            return
        found = await self._flows(_ALL)
        self._counted_at = self._clock()
        self.live = len(found)
        self.services = Counter(name for name, _ in found)
        self.backends = Counter((name, flow.backend) for name, flow in found)

    async def rows(self, wanted: ConnectionFilter) -> AsyncIterator[list[ConnectionRow]]:
        """The matching connections, in chunks."""
        if not self._in_use:
            return
        now = self._clock()
        found = iter(await self._matching(wanted))
        while chunk := list(islice(found, _CHUNK)):
            yield [row_of(name, flow, self._path_of(flow), now) for name, flow in chunk]

    async def chosen(self, ids: Collection[str] | None, wanted: ConnectionFilter) -> list[Flow]:
        """The matching connections with these ids (None: any)."""
        if not self._in_use or (ids is not None and not any(one.startswith(KERNEL_PREFIX) for one in ids)):
            return []
        chosen = None if ids is None else frozenset(ids)
        return [flow for _, flow in await self._matching(wanted) if chosen is None or id_of(flow) in chosen]

    async def carried(self, services: Collection[ServicePortName]) -> list[tuple[ServicePortName, Flow]]:
        """The connections of these Service ports.

        Raises:
            NetfilterError: they cannot be read.
        """
        pools = self._state.pools
        asked = [key for key, pool in pools.items() if pool.service_port in services and not key.outside]
        if not self._in_use or not asked:
            return []
        found = await self._read(asked)
        named = await asyncio.to_thread(self._named, found, pools)
        return [(name, flow) for name, flow in named if name in services]

    async def completed(
        self, relayed: AsyncIterator[list[ConnectionRow]]
    ) -> AsyncIterator[list[ConnectionRow]]:
        """The rows of what workers relay, and of UDP clients by which frontend they came.

        For accepted connections the kernel tells that a worker, for datagrams conntrack alone knows it.
        """
        known: dict[tuple[str, str], Flow] | None = None
        async for chunk in relayed:
            if not any(_lacks_frontend(row) for row in chunk):
                yield chunk
                continue
            if known is None:
                known = await self._redirected_datagrams()
            yield [_completed(row, known) if _lacks_frontend(row) else row for row in chunk]

    async def _redirected_datagrams(self) -> dict[tuple[str, str], Flow]:
        """The UDP flows to listeners of ours, by listener and client as that sees it."""
        captures = self._state.captures
        asked = {
            msgspec.structs.replace(key, outside=False)
            for key, target in captures.items()
            if key.protocol is Protocol.UDP and isinstance(target, ToListener)
        }
        try:
            found = await self._read(sorted(asked)) if asked else []
        except NetfilterError as error:
            log.warning("by which address UDP clients came is not shown", error=str(error))
            return {}
        return {(str(flow.backend), str(flow.source)): flow for flow in found if flow.frontend in asked}

    async def drain(self, seconds: float) -> int:
        """Wait for TCP connections to end. UDP flows have no end, and are not waited for.

        Args:
            seconds: for how long at most.

        Returns:
            How many were left after that time, or when `end_drain` was called, as far as is known.
        """
        if not self._in_use:
            return 0
        clock = asyncio.get_running_loop().time
        ends = clock() + seconds
        left = 0
        while True:
            try:
                left = self._lasting(await self._read(()))
            except NetfilterError as error:  # that says nothing of the connections
                log.warning("connections on the path redirect-to-pod cannot be seen", error=str(error))
            else:
                if not left:
                    break
            time_left = ends - clock()
            if time_left <= 0 or self._hurried.is_set():
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), min(_DRAIN_TICK, time_left))
        return left

    def end_drain(self) -> None:
        """Stop waiting for connections to end, now or as soon as `drain` is called."""
        self._hurried.set()

    def _path_of(self, flow: Flow) -> Path:
        target = self._state.captures.get(flow.frontend)
        is_steered = isinstance(target, ToPods) and target.steered
        return Path.STEERED if is_steered else Path.REDIRECT_TO_POD

    def _lasting(self, found: Iterable[Flow]) -> int:
        captures = self._state.captures
        return sum(
            flow.frontend.protocol is Protocol.TCP and self._is_carried(flow, captures) for flow in found
        )

    def _is_carried(self, flow: Flow, frontends: Container[Frontend]) -> bool:
        """Whether it leads from one of these frontends to a pod; not to a listener, where it is relayed."""
        led_to = Frontend(flow.frontend.protocol, flow.backend)
        return flow.frontend in frontends and led_to not in self._listeners

    async def _matching(self, wanted: ConnectionFilter) -> list[tuple[ServicePortName, Flow]]:
        return [
            (name, flow)
            for name, flow in await self._flows(wanted)
            if wanted.matches(name, flow.client, flow.backend) and wanted.has_source(flow.source)
        ]

    async def _flows(self, wanted: ConnectionFilter) -> list[tuple[ServicePortName, Flow]]:
        """The connections to our frontends, or to those of the wanted Service, with their Service ports."""
        pools = self._state.pools
        asked: list[Frontend] = []
        if wanted.service is not None:
            # A flow does not tell where it came from: what is captured from outside alone is asked for once.
            asked = [
                key
                for key, pool in pools.items()
                if not key.outside and is_service(wanted.service, pool.service_port)
            ]
            if not asked:
                return []
        try:
            found = await self._read(asked)
        except NetfilterError as error:
            if not self.error:
                log.warning("connections on the path redirect-to-pod are not shown", error=str(error))
            self.error = str(error)
            return []
        self.error = ""
        return await asyncio.to_thread(self._named, found, pools)

    def _named(
        self, found: Iterable[Flow], pools: Mapping[Frontend, PoolName]
    ) -> list[tuple[ServicePortName, Flow]]:
        return [(pools[flow.frontend].service_port, flow) for flow in found if self._is_carried(flow, pools)]


def _lacks_frontend(row: ConnectionRow) -> bool:
    return row.protocol == Protocol.UDP.value and not row.frontend


def _completed(row: ConnectionRow, known: Mapping[tuple[str, str], Flow]) -> ConnectionRow:
    flow = known.get((row.listener or "", row.client))
    if flow is None:
        return row
    # The kernel gives a client another port where two of its flows would be one to the listener.
    return msgspec.structs.replace(row, frontend=str(flow.frontend.address), client=str(flow.client))


def id_of(flow: Flow) -> str:
    """What an operator calls it."""
    return f"{KERNEL_PREFIX}{flow.id}"


def row_of(service: ServicePortName, flow: Flow, path: Path, now: float) -> ConnectionRow:
    """What an operator sees of one connection; `now` in seconds since the epoch."""
    age = flow.idle if flow.started is None else max(0.0, now - flow.started)
    started = ""
    if flow.started is not None:
        started = datetime.fromtimestamp(flow.started, UTC).isoformat(timespec="milliseconds")
    unknown = ("age_seconds",) if flow.started is None else ()
    return ConnectionRow(
        id=id_of(flow),
        protocol=flow.frontend.protocol.value,
        service=str(service),
        client=str(flow.client),
        frontend=str(flow.frontend.address),
        listener=None,
        source=str(flow.source),
        backend=str(flow.backend),
        state=flow.state,
        path=path.value,
        started_at=started,
        age_seconds=round(age, 3),
        idle_seconds=round(min(flow.idle, age), 3),
        bytes_up=flow.bytes_up if flow.counted else None,
        bytes_down=flow.bytes_down if flow.counted else None,
        unknown=unknown if flow.counted else (*unknown, "bytes_up", "bytes_down"),
    )
