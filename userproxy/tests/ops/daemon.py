"""A made-up daemon behind a real admin socket, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

import uvloop

from userproxy.model.address import Address
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, SourceStatus, StatusRow
from userproxy.model.service import ServicePortName
from userproxy.ops.admin.interface import Asker, OperatorError, View
from userproxy.ops.admin.messages import Killed
from userproxy.ops.admin.server import serve_admin
from userproxy.tests.records import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from userproxy.model.filter import ConnectionFilter, RecordFilter
    from userproxy.model.records import RecordRow
    from userproxy.ops.http.clients import Limits


def connection(number: int = 1, **changes: object) -> ConnectionRow:
    """A connection of the reference deployment."""
    fields: dict[str, object] = {
        "id": str(number),
        "protocol": "TCP",
        "service": "default/server-service:http",
        "client": f"10.0.1.3:{40000 + number}",
        "frontend": "10.3.241.152:80",
        "listener": "10.100.0.2:10400",
        "source": f"10.100.0.2:{50000 + number}",
        "backend": "10.0.1.2:8080",
        "state": "established",
        "path": "redirect-to-host",
        "started_at": "2026-11-23T06:00:00Z",
        "age_seconds": 192.4,
        "idle_seconds": 0.2,
        "bytes_up": 512,
        "bytes_down": 1_258_291,
    }
    return ConnectionRow(**{**fields, **changes})  # type: ignore[arg-type]  # msgspec checks on the wire


SERVICE = ServiceRow(
    service="default/server-service:http",
    protocol="TCP",
    path="redirect-to-host",
    frontends=("10.3.241.152:80", "[fd00::152]:80"),
    listener="10.100.0.2:10400",
    backends_up=1,
    backends=2,
    connections=3,
    problems=(),
)
REFUSED = ServiceRow(
    service="default/empty",
    protocol="UDP",
    path="redirect-to-pod",
    frontends=("10.3.241.153:53",),
    listener=None,
    backends_up=0,
    backends=0,
    connections=0,
    problems=("no endpoints: check the selector",),
)
UP = BackendRow(
    service="default/server-service:http",
    backend="10.0.1.2:8080",
    node="host1",
    zone="",
    state="up",
    reason="",
    since="2026-11-23T06:00:00Z",
    latency_ms=0.42,
    connections=3,
)
DOWN = BackendRow(
    service="default/server-service:http",
    backend="10.0.2.2:8080",
    node="host2",
    zone="west",
    state="down",
    reason="connection refused, 3 times",
    since="2026-11-23T06:04:00Z",
    latency_ms=None,
    connections=0,
)
STATUS = StatusRow(
    version="0.1.0",
    pid=4711,
    node="host1",
    mode="redirect-to-host",
    uptime_seconds=3700.0,
    source=SourceStatus(kind="manifests", synced=True, stale_seconds=0.0),
    services=2,
    listeners=1,
    connections=3,
    problems=("default/empty: no endpoints",),
    ruleset="owned",
)


class MadeUpView:
    """What the made-up daemon shows: the rows it is given, in chunks of so many."""

    def __init__(self, connections: list[ConnectionRow] | None = None, chunk: int = 1000) -> None:
        self.rows = connections if connections is not None else [connection()]
        self.service_rows = [SERVICE, REFUSED]
        self.backend_rows = [UP, DOWN]
        self.chunk = chunk
        self.status_row = STATUS
        self.record_rows = [record()]
        self.asked_for: list[RecordFilter] = []

    async def connections(self, wanted: ConnectionFilter, /) -> AsyncIterator[list[ConnectionRow]]:
        """The rows that match."""
        for start in range(0, len(self.rows), self.chunk):
            yield [
                row
                for row in self.rows[start : start + self.chunk]
                if wanted.matches(
                    ServicePortName.parse(row.service),
                    Address.parse(row.client),
                    Address.parse(row.backend) if row.backend else None,
                )
            ]

    async def records(self, wanted: RecordFilter, /) -> AsyncIterator[list[RecordRow]]:
        """All; what is asked for is noted."""
        self.asked_for.append(wanted)
        yield self.record_rows

    async def services(self) -> list[ServiceRow]:
        """The Service ports."""
        return self.service_rows

    async def backends(self) -> list[BackendRow]:
        """The backends."""
        return self.backend_rows

    async def status(self) -> StatusRow:
        """The daemon."""
        return self.status_row


class MadeUpOperator:
    """What the made-up daemon is told to do; it notes that, and kills and drains nothing.

    Attributes:
        beyond: how many connections the kernel carries that do not end.
        askers: who told it, each time.
    """

    def __init__(self) -> None:
        self.killed: list[tuple[tuple[str, ...] | None, ConnectionFilter]] = []
        self.drained: list[tuple[Address, bool]] = []
        self.beyond = 0
        self.askers: list[Asker] = []
        self.level = "info"

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter, /, asker: Asker) -> Killed:
        """As many as ids were given; three otherwise. Of those of the kernel, the first `beyond` stay."""
        self.askers.append(asker)
        self.killed.append((None if ids is None else tuple(ids), wanted))
        told = ("1", "ct-1", "ct-2") if ids is None else ids
        found = [one for one in told if one != "unknown"]
        carried = [one for one in found if one.startswith("ct-")]
        left = tuple(carried[: self.beyond])
        return Killed(
            killed=len(found) - len(left),
            carried=len(carried) - len(left),
            out_of_reach=len(left),
            left=left,
        )

    def log_level(self) -> str:
        """As it was set."""
        return self.level

    def set_log_level(self, level: str, /, asker: Asker) -> None:
        """Any but `loud`."""
        if level == "loud":
            raise OperatorError("there is no log level 'loud'", "one of debug, info", HTTPStatus.BAD_REQUEST)
        self.askers.append(asker)
        self.level = level

    async def drain(
        self, backend: Address, /, asker: Asker, *, undo: bool, end_after: float | None = None
    ) -> tuple[int, int]:
        """Two backends with five connections; 10.9.9.9 is none."""
        if backend.ip == "10.9.9.9":
            raise OperatorError("no backend is at 10.9.9.9", "see `userproxy backends`", HTTPStatus.NOT_FOUND)
        self.askers.append(asker)
        self.drained.append((backend, undo))
        self.end_after = end_after
        return 2, 5


@contextlib.contextmanager
def running(
    path: Path,
    view: View | None = None,
    limits: Limits | None = None,
    operator: MadeUpOperator | None = None,
) -> Iterator[None]:
    """A daemon that answers on path meanwhile."""
    ready: threading.Event = threading.Event()
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with serve_admin(path, view or MadeUpView(), operator or MadeUpOperator(), limits):
            stops.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: uvloop.run(serve()), name="made-up daemon")
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop, stop = stops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
    assert not thread.is_alive()
