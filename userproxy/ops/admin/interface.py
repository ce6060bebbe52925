"""What stands behind the admin socket: what the daemon shows, what it can be told, and who tells it."""

from __future__ import annotations

import contextlib
import socket
import struct
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from userproxy.model.address import Address
    from userproxy.model.filter import ConnectionFilter, RecordFilter
    from userproxy.model.records import RecordRow
    from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow
    from userproxy.ops.admin.messages import Killed

_UCRED = struct.Struct("iII")  # pid, uid and gid: `struct ucred` of unix(7)


class View(Protocol):
    """What the daemon shows of itself, counted when asked. It must not hold the loop for long."""

    def connections(self, wanted: ConnectionFilter, /) -> AsyncIterator[list[ConnectionRow]]:
        """The live connections that match, some hundreds at a time, lest the loop be held."""

    def records(self, wanted: RecordFilter, /) -> AsyncIterator[list[RecordRow]]:
        """The connections that match, live or over, with all that is known of them; likewise."""

    async def services(self) -> list[ServiceRow]:
        """The Service ports, sorted by name."""

    async def backends(self) -> list[BackendRow]:
        """The backends, sorted by Service port and address."""

    async def status(self) -> StatusRow:
        """The daemon itself."""


class Asker(msgspec.Struct, frozen=True):
    """Who is at the other end of the socket, as the kernel says (`SO_PEERCRED`).

    Attributes:
        uid: that the process had when it connected.
        pid: of the process; 0 if it is in a pid namespace that we do not see.
        command: the name of its program, or empty. Not its arguments: they may hold what no log should.
    """

    uid: int
    pid: int
    command: str

    @classmethod
    def behind(cls, peer: socket.socket) -> Asker:
        """The one who connected this unix socket."""
        pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        command = ""
        with contextlib.suppress(OSError):  # it has ended, or its process is not ours to see
            command = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        return cls(uid, pid, command)


class OperatorError(Exception):
    """What the operator asks for cannot be done.

    Args:
        error: what is wrong, without a full stop.
        remedy: what to do about it.
        status: what HTTP calls it.
    """

    def __init__(self, error: str, remedy: str, status: HTTPStatus = HTTPStatus.CONFLICT) -> None:
        super().__init__(f"{error}: {remedy}")
        self.error = error
        self.remedy = remedy
        self.status = status


class Operator(Protocol):
    """What the daemon does when told to, beside what its sources say."""

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter, /, asker: Asker) -> Killed:
        """End the connections with these ids (None: any) that match, whoever carries them.

        Raises:
            OperatorError: nothing in particular is asked for.
        """

    async def drain(
        self, backend: Address, /, asker: Asker, *, undo: bool, end_after: float | None = None
    ) -> tuple[int, int]:
        """Take a pod out, or bring it back; returns how many backends, and their connections.

        These are ended after `end_after` seconds, unless it is brought back before; None: never.

        Raises:
            OperatorError: there is no such backend, or it was not taken out.
        """

    def log_level(self) -> str:
        """From which severity on there are log lines."""

    def set_log_level(self, level: str, /, asker: Asker) -> None:
        """Change that, in the daemon and its workers, until it starts anew.

        Raises:
            OperatorError: there is no such level.
        """
