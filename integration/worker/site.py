"""Real workers on loopback: a client connects to a listener's port directly, netfilter is not needed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.messages import Begin, ServiceCounts, Totals
from userproxy.model.service import ServicePortName
from userproxy.model.state import Backend, Serve
from userproxy.worker.origin import processes
from userproxy.worker.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from userproxy.model.rows import ConnectionRow
    from userproxy.worker.handle import WorkerHandle

EVERYTHING = ConnectionFilter()
BEGIN = Begin(
    index=0,
    workers=1,
    max_connections=1000,
    max_pipes=100,
    linger=60.0,
    orphan_seconds=None,
    log_format="console",
    log_level="error",
)


class Server:
    """A backend: says its name to each client, and then what the client says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clients = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._server is not None
        return Address(*self._server.sockets[0].getsockname()[:2])

    async def start(self) -> None:
        """Listen on a port that is free."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        writer.write(f"{self.name}\n".encode())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()


class Client:
    """A connection through a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str) -> None:
        self.server = server
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: Address) -> Client:
        """Connect, and wait until the server has said its name."""
        reader, writer = await asyncio.open_connection(address.ip, address.port)
        return cls(reader, writer, (await reader.readline()).decode().strip())

    async def is_served(self) -> bool:
        """Whether what it says comes back."""
        self._writer.write(b"still there?")
        return await self._reader.readexactly(12) == b"still there?"

    async def is_reset(self) -> bool:
        """Wait for the end; whether that was a reset."""
        try:
            await self._reader.read()
        except ConnectionResetError:
            return True
        return False

    async def close(self) -> None:
        """Leave in order, and wait until the other side has noticed."""
        self._writer.write_eof()
        await self._reader.read()
        self._writer.close()


class Site:
    """Pools that find no workers but each other's, and servers behind them."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.pools: list[WorkerPool] = []
        self.servers: list[Server] = []

    async def pool(self, count: int = 1, begin: Begin = BEGIN) -> WorkerPool:
        """Another control side, with workers."""
        pool = WorkerPool(count, begin, processes(self.prefix))
        self.pools.append(pool)
        await pool.start()
        return pool

    async def server(self, name: str = "server1") -> Server:
        """Another backend."""
        server = Server(name)
        await server.start()
        self.servers.append(server)
        return server

    async def serving(self, count: int = 1, begin: Begin = BEGIN) -> tuple[WorkerPool, Serve]:
        """A pool, and the Service `web` that it serves: `server1` is behind it, and nobody else."""
        server = await self.server()
        pool = await self.pool(count, begin)
        wanted = serve("web", server.address)
        await pool.serve([wanted])
        return pool, wanted

    async def shut(self) -> None:
        """End everything."""
        for server in self.servers:
            server.stop()
        for pool in self.pools:
            for handle in pool._everybody():
                handle.retiring = True
                handle.kill()
                await _ended(handle)


async def _ended(handle: WorkerHandle) -> None:
    await until(lambda: not handle.is_alive)


def serve(name: str, *backends: Address, listener: Address | None = None) -> Serve:
    """A Service port on a host port that is free."""
    return Serve(
        service=ServicePortName("default", name),
        listener=listener or free_port(),
        backends=tuple(Backend(backend) for backend in backends),
    )


def free_port() -> Address:
    """A port on loopback that nobody has, on an address that hardly anybody else uses."""
    with socket.socket() as probe:
        probe.bind((f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}.1", 0))
        return Address(*probe.getsockname())


async def rows(pool: WorkerPool) -> list[ConnectionRow]:
    """The live connections."""
    return [row async for part in pool.connections(EVERYTHING) for row in part]


async def live(pool: WorkerPool) -> list[int]:
    """How many connections each worker counts."""
    return [part.connections for part in await pool.count() if isinstance(part, Totals)]


async def latencies(pool: WorkerPool) -> int:
    """How many backends have been connected to, over all workers."""
    counts = [part for part in await pool.count() if isinstance(part, ServiceCounts)]
    return sum(len(service.backends) for part in counts for service in part.services)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's own time limit says when that is too late."""
    while not condition():  # noqa: ASYNC110 - what other processes do is no event of ours
        await asyncio.sleep(0.001)


async def refused(address: Address) -> None:
    """Connect until that is refused; who comes in the very moment of closing is reset."""
    while True:
        try:
            _, writer = await asyncio.open_connection(address.ip, address.port)
            writer.transport.abort()  # let in after all: the worker is not to wait for this one
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue


def pids(pool: WorkerPool) -> list[int]:
    """Of the workers that accept."""
    return [handle.pid for handle in pool._handles.values()]


def is_running(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def zombies(found: Iterable[int]) -> list[int]:
    """Which of these are waiting to be collected."""
    return [pid for pid in found if Path(f"/proc/{pid}").exists() and not is_running(pid)]


@contextlib.asynccontextmanager
async def minded(pool: WorkerPool) -> AsyncIterator[None]:
    """The pool replaces workers meanwhile."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.mind(lambda: None))
        try:
            yield
        finally:
            task.cancel()
