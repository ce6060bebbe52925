"""The daemon's end of the admin socket.

One instance lives as long as the daemon. Whoever may open the socket is root, and is still not trusted to be
quick, complete or sane: each client has a deadline for its request and for taking each part of the answer, a
request has a size limit, and there is a limit on clients. None of them can make the daemon wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
import structlog

from userproxy import __version__
from userproxy.ops import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.model.address import Address
    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow

_log = structlog.get_logger("userproxy.admin")
_Row = TypeVar("_Row")


class View(Protocol):
    """What the daemon shows of itself, counted when asked. It must not hold the loop for long."""

    def connections(self, wanted: ConnectionFilter, /) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match, some hundreds at a time, lest the loop be held."""

    async def services(self) -> list[ServiceRow]:
        """The Service ports, sorted by name."""

    async def backends(self) -> list[BackendRow]:
        """The backends, sorted by Service port and address."""

    async def status(self) -> StatusRow:
        """The daemon itself."""


class OperatorError(Exception):
    """What the operator asks for cannot be done. One line, with the remedy."""


class Operator(Protocol):
    """What the daemon does when told to, beside what its sources say."""

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter, /) -> tuple[int, int]:
        """Reset the connections with these ids (None: any) that match.

        Returns:
            How many were reset, and how many others netfilter carries, so that they cannot be.

        Raises:
            OperatorError: nothing in particular is asked for.
        """

    async def drain(self, backend: Address, /, *, undo: bool) -> tuple[int, int]:
        """Take a pod out, or bring it back; returns how many backends, and their connections.

        Raises:
            OperatorError: there is no such backend, or it was not taken out.
        """


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client, and all of them together, may cost.

    Attributes:
        clients: at the same time; one more is told so and hung up on.
        request_seconds: to send a whole request, counted from the greeting or the last answer.
        write_seconds: to take one frame of an answer.
        rows: in one frame, at most.
    """

    clients: int = 32
    request_seconds: float = 10.0
    write_seconds: float = 10.0
    rows: int = 256


class AdminSocketError(Exception):
    """The admin socket cannot be opened. One line, with the remedy."""


@contextlib.asynccontextmanager
async def serve_admin(
    path: Path, view: View, operator: Operator, limits: Limits | None = None
) -> AsyncIterator[None]:
    """Answer on path while the context lasts; then hang up on all clients and remove the socket.

    Raises:
        AdminSocketError: the socket cannot be made, or another daemon answers on it.
    """
    listener = bind_admin_socket(path)
    ours = _identity(path)
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            desk = _Desk(tasks, view, operator, limits or Limits())
            server = await asyncio.start_unix_server(desk.accept, sock=listener, limit=protocol.MAX_REQUEST)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below: the group would wrap it in a group
                failure = error
            finally:
                server.close()
                desk.close()
    finally:
        listener.close()
        _remove_own(path, ours)
    if failure is not None:
        raise failure


def bind_admin_socket(path: Path) -> socket.socket:
    """Bind path as a unix socket that only its owner can open, replacing one that a dead daemon left.

    Returns:
        The socket, bound and not listening yet.

    Raises:
        AdminSocketError: something is in the way.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        # Linux gives the file the mode of the socket's own inode (unix_bind in net/unix/af_unix.c), so it is
        # 0600 from its first moment, and the process's umask, which other threads share, stays alone.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise AdminSocketError(f"cannot make {path}: {reason}: choose another --admin-socket") from None
    except AdminSocketError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminSocketError(f"{path} exists and is no socket: remove it, or choose another --admin-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        outcome = probe.connect_ex(os.fspath(path))
    if outcome in (0, errno.EAGAIN):  # EAGAIN: it listens, and its backlog is full
        raise AdminSocketError(f"another daemon answers on {path}: stop it, or choose another --admin-socket")
    path.unlink(missing_ok=True)


def _remove_own(path: Path, ours: tuple[int, int] | None) -> None:
    """Remove the socket, unless a successor has made its own in the meantime."""
    if ours is not None and _identity(path) == ours:
        with contextlib.suppress(OSError):  # a directory that went away, or became read-only
            path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Desk:
    """Takes clients in, one task each, and knows which are there."""

    def __init__(self, tasks: asyncio.TaskGroup, view: View, operator: Operator, limits: Limits) -> None:
        self._tasks = tasks
        self._view = view
        self._operator = operator
        self._limits = limits
        self._clients: set[asyncio.Task[None]] = set()
        self._open = True

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start serving a client, or refuse it."""
        if not self._open:
            writer.transport.abort()
        elif len(self._clients) >= self._limits.clients:
            busy = f"the daemon already serves {self._limits.clients} admin clients: try again in a moment"
            writer.write(protocol.answer_frame(protocol.Error(busy)))
            writer.close()
        else:
            client = _Client(reader, writer, self._view, self._operator, self._limits)
            task = self._tasks.create_task(client.serve(), name="admin client")
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    def close(self) -> None:
        """Hang up on everyone."""
        self._open = False
        for task in self._clients:
            task.cancel()


class _Client:
    """One client of the admin socket, from its greeting to its end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        view: View,
        operator: Operator,
        limits: Limits,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._view = view
        self._operator = operator
        self._limits = limits
        writer.transport.set_write_buffer_limits(high=0)  # so that drain() waits until the kernel has it all

    async def serve(self) -> None:
        """Greet, answer requests until the client leaves or errs. Raises nothing but CancelledError."""
        try:
            await self._send(protocol.answer_frame(protocol.Hello(protocol.PROTOCOL, __version__)))
            while True:
                await self._answer(await self._request())
        except protocol.ProtocolError as error:
            await self._refuse(
                f"the daemon, userproxy {__version__}, does not understand the request ({error}): "
                "use the same version on both sides"
            )
        except OperatorError as error:
            await self._refuse(str(error))
        except (OSError, EOFError, TimeoutError):
            pass  # it left, or it is too slow: nobody is there to tell
        except Exception:  # noqa: BLE001 - logged; whatever it is, it costs only this client its answer
            _log.exception("an admin request failed")
            await self._refuse("the daemon failed to answer: its log says why")
        finally:
            self._writer.transport.abort()  # close() would wait for a client that does not read

    async def _request(self) -> protocol.Request:
        async with asyncio.timeout(self._limits.request_seconds):
            header = await self._reader.readexactly(protocol.LENGTH.size)
            length = protocol.frame_length(header, protocol.MAX_REQUEST)
            return protocol.decode_request(await self._reader.readexactly(length))

    async def _answer(self, request: protocol.Request) -> None:
        match request:
            case protocol.GetConnections(filter=wanted):
                await self._send_connections(self._view.connections(wanted))
            case protocol.GetServices():
                await self._send_rows(map(protocol.ServiceRows, self._batches(await self._view.services())))
            case protocol.GetBackends():
                await self._send_rows(map(protocol.BackendRows, self._batches(await self._view.backends())))
            case protocol.GetStatus():
                await self._send(protocol.answer_frame(protocol.StatusAnswer(await self._view.status())))
            case protocol.KillRequest(ids=ids, filter=wanted):
                killed = protocol.KillAnswer(*await self._operator.kill(ids, wanted))
                await self._send(protocol.answer_frame(killed))
            case protocol.DrainRequest(backend=backend, undo=undo):
                answer = protocol.DrainAnswer(*await self._operator.drain(backend, undo=undo))
                await self._send(protocol.answer_frame(answer))
        await self._send(protocol.answer_frame(protocol.End()))

    async def _send_connections(self, chunks: AsyncIterator[list[ConnectionRow]]) -> None:
        try:
            async for chunk in chunks:
                await self._send_rows(map(protocol.ConnectionRows, self._batches(chunk)))
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def _send_rows(self, answers: Iterable[protocol.Rows]) -> None:
        for answer in answers:
            for frame in protocol.row_frames(answer):
                await self._send(frame)

    def _batches(self, rows: Sequence[_Row]) -> Iterable[list[_Row]]:
        remaining = iter(rows)
        return iter(lambda: list(itertools.islice(remaining, self._limits.rows)), [])

    async def _refuse(self, message: str) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await self._send(protocol.answer_frame(protocol.Error(message)))

    async def _send(self, frame: bytes) -> None:
        async with asyncio.timeout(self._limits.write_seconds):
            self._writer.write(frame)
            await self._writer.drain()
            await asyncio.sleep(0)  # drain() does not yield while there is room, and other work waits
