"""The other end of the admin socket: synchronous and light, because a command should start at once."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Self, TypeVar

from userproxy import __version__
from userproxy.model.filter import ConnectionFilter
from userproxy.ops import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userproxy.model.address import Address
    from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow

_Wanted = TypeVar(
    "_Wanted",
    protocol.ConnectionRows,
    protocol.ServiceRows,
    protocol.BackendRows,
    protocol.StatusAnswer,
    protocol.KillAnswer,
    protocol.DrainAnswer,
)


_TIMEVAL = struct.Struct("@ll")  # seconds and microseconds, of the machine's own width


class AdminError(Exception):
    """The daemon could not be asked, or did not answer. One line, with the remedy."""


class AdminClient:
    """A connection to a daemon, as a context manager; requests go one after another.

    Every method raises AdminError, and so does entering the context. An iterator of rows must be read to its
    end before the next request.

    Args:
        path: of the admin socket.
        timeout: in seconds, for the daemon to take or send the next bytes.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = 10.0) -> None:
        self._path = os.fspath(path)
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._daemon = "unknown"

    def __enter__(self) -> Self:
        try:
            self._connect()
            self._greet()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def version(self) -> str:
        """The daemon's version."""
        return self._daemon

    def connections(self, wanted: ConnectionFilter | None = None) -> Iterator[ConnectionRow]:
        """The live connections that match."""
        request = protocol.GetConnections(wanted or ConnectionFilter())
        for answer in self._ask(request, protocol.ConnectionRows):
            yield from answer.rows

    def services(self) -> Iterator[ServiceRow]:
        """The Service ports."""
        for answer in self._ask(protocol.GetServices(), protocol.ServiceRows):
            yield from answer.rows

    def backends(self) -> Iterator[BackendRow]:
        """The backends of all Service ports."""
        for answer in self._ask(protocol.GetBackends(), protocol.BackendRows):
            yield from answer.rows

    def status(self) -> StatusRow:
        """The daemon itself."""
        return self._ask_one(protocol.GetStatus(), protocol.StatusAnswer).row

    def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter | None = None) -> protocol.KillAnswer:
        """Reset connections.

        Args:
            ids: of the connections, or None: whichever match.
            wanted: what they must have.
        """
        chosen = None if ids is None else tuple(ids)
        request = protocol.KillRequest(chosen, wanted or ConnectionFilter())
        return self._ask_one(request, protocol.KillAnswer)

    def drain(self, backend: Address, *, undo: bool = False) -> protocol.DrainAnswer:
        """Drain a pod, or bring it back; once this returns, the data side has been told."""
        return self._ask_one(protocol.DrainRequest(backend, undo), protocol.DrainAnswer)

    def _ask_one(self, request: protocol.Request, wanted: type[_Wanted]) -> _Wanted:
        answers = list(self._ask(request, wanted))
        if len(answers) != 1:
            raise self._confused(f"{len(answers)} answers where one was expected")
        return answers[0]

    def _connect(self) -> None:
        try:
            # A non-blocking connect, which Python's own timeout makes of it, fails at once while the daemon's
            # backlog is full; a blocking one waits for as long as the send timeout says (unix(7), socket(7)).
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._timeout))
            self._socket.connect(self._path)
            self._socket.settimeout(self._timeout)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise AdminError(
                f"no daemon at {self._path}: start one with `userproxy run`, "
                "or name its socket with --admin-socket"
            ) from None
        except PermissionError:
            raise AdminError(f"may not open {self._path}: run as root, or as the daemon's user") from None
        except (TimeoutError, BlockingIOError):
            raise self._silent() from None
        except OSError as error:
            raise AdminError(
                f"cannot open {self._path}: {error.strerror or error}: name the socket with --admin-socket"
            ) from None

    def _greet(self) -> None:
        greeting = self._receive()
        if not isinstance(greeting, protocol.Hello):
            raise self._confused("it did not greet")
        self._daemon = greeting.version
        if greeting.protocol != protocol.PROTOCOL:
            age = "newer" if greeting.protocol > protocol.PROTOCOL else "older"
            raise AdminError(
                f"the daemon at {self._path} is {age} (userproxy {greeting.version}) than this command "
                f"({__version__}): use the same version on both sides"
            )

    def _ask(self, request: protocol.Request, wanted: type[_Wanted]) -> Iterator[_Wanted]:
        try:
            self._socket.sendall(protocol.request_frame(request))
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise self._lost() from None
        while not isinstance(answer := self._receive(), protocol.End):
            if not isinstance(answer, wanted):
                raise self._confused(f"{type(answer).__name__} where {wanted.__name__} was expected")
            yield answer

    def _receive(self) -> protocol.Answer:
        try:
            length = protocol.frame_length(self._read(protocol.LENGTH.size), protocol.MAX_ANSWER)
            answer = protocol.decode_answer(self._read(length))
        except protocol.ProtocolError as error:
            raise self._confused(str(error)) from None
        if isinstance(answer, protocol.Error):
            raise AdminError(answer.message)
        return answer

    def _read(self, length: int) -> bytes:
        received = bytearray()
        try:
            while len(received) < length:
                part = self._socket.recv(length - len(received))
                if not part:
                    raise self._lost()
                received += part
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise self._lost() from None
        return bytes(received)

    def _lost(self) -> AdminError:
        return AdminError(f"lost the connection to {self._path}: see the daemon's log, and try again")

    def _silent(self) -> AdminError:
        return AdminError(
            f"the daemon at {self._path} does not answer within {self._timeout:g} s: "
            "see its log, and try again"
        )

    def _confused(self, what: str) -> AdminError:
        return AdminError(
            f"what answers at {self._path} is not understood ({what}): "
            f"is it a daemon of this version, userproxy {__version__}?"
        )


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
