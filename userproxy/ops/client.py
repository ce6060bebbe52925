"""The other end of the admin socket: synchronous and light, because a command should start at once."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from userproxy import __version__
from userproxy.model.filter import ConnectionFilter
from userproxy.model.records import RecordRow
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow
from userproxy.ops.admin.messages import (
    API,
    API_HEADER,
    Drained,
    DrainRequest,
    Failure,
    Killed,
    KillRequest,
    LogLevel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from http.client import HTTPConnection, HTTPResponse

    from userproxy.model.address import Address
    from userproxy.model.filter import RecordFilter

KILL_SECONDS = 60.0
"""For ending connections: the kernel's take two seconds for some thousands of them."""

DEFAULT_PATH = "/run/userproxy/admin.sock"

_Kind = TypeVar("_Kind", bound=msgspec.Struct)

_TIMEVAL = struct.Struct("@ll")  # seconds and microseconds, of the machine's own width
_PIECE = 64 * 1024
_LONGEST = 1024 * 1024
"""Bytes of one row, or of an answer that is no list."""


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
        self._http: HTTPConnection | None = None

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connections(
        self, wanted: ConnectionFilter | None = None, states: Sequence[str] = ()
    ) -> Iterator[ConnectionRow]:
        """The live connections that match, and are in one of the states if any is named."""
        from urllib.parse import urlencode  # noqa: PLC0415 - not every command needs it

        query = [*(wanted or ConnectionFilter()).texts().items(), *(("state", state) for state in states)]
        path = f"/connections?{urlencode(query)}" if query else "/connections"
        return self.rows(path, ConnectionRow)

    def records(self, wanted: RecordFilter) -> Iterator[RecordRow]:
        """The connections that match, live or over, with all that is known of them."""
        from urllib.parse import urlencode  # noqa: PLC0415 - likewise

        return self.rows(f"/records?{urlencode(wanted.texts())}", RecordRow)

    def log_level(self, level: str | None = None) -> str:
        """From which severity on there are log lines; with a level, that is set first."""
        return self.one("/log-level", LogLevel, None if level is None else LogLevel(level=level)).level

    def services(self) -> Iterator[ServiceRow]:
        """The Service ports."""
        return self.rows("/services", ServiceRow)

    def backends(self) -> Iterator[BackendRow]:
        """The backends of all Service ports."""
        return self.rows("/backends", BackendRow)

    def status(self) -> StatusRow:
        """The daemon itself."""
        return self.one("/status", StatusRow)

    def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter | None = None) -> Killed:
        """Reset connections.

        Args:
            ids: of the connections, or None: whichever match.
            wanted: what they must have.
        """
        chosen = None if ids is None else tuple(ids)
        texts = (wanted or ConnectionFilter()).texts()
        request = KillRequest(
            ids=chosen,
            service=texts.get("service"),
            client=texts.get("client"),
            backend=texts.get("backend"),
        )
        if self._timeout < KILL_SECONDS:
            self._socket.settimeout(KILL_SECONDS)
        return self.one("/connections/kill", Killed, request)

    def drain(self, backend: Address, *, undo: bool = False, end_after: float | None = None) -> Drained:
        """Drain a pod, or bring it back; once this returns, the data side has been told.

        Its connections are ended after `end_after` seconds; None: they may go on.
        """
        shown = str(backend) if backend.port else backend.ip
        request = DrainRequest(backend=shown, end_after=end_after)
        return self.one(f"/backends/{'undrain' if undo else 'drain'}", Drained, request)

    def rows(self, path: str, kind: type[_Kind]) -> Iterator[_Kind]:
        """The rows of a list, as they come."""
        decoder = msgspec.json.Decoder(kind)
        response, rest = self._ask(path), b""
        while piece := self._read(response):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST:
                raise self._confused(f"a row of more than {_LONGEST} bytes")
            yield from (self._decoded(line, decoder) for line in lines)
        if rest:
            raise self._lost()
        response.close()  # http.client does not notice by itself that it has come to the end

    def one(self, path: str, kind: type[_Kind], body: msgspec.Struct | None = None) -> _Kind:
        """An object that is asked for; with a body, as POST."""
        return self._decoded(self._whole(self._ask(path, body)), msgspec.json.Decoder(kind))

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
        from http.client import HTTPConnection  # noqa: PLC0415 - takes 10 ms, which a `--help` need not wait for

        self._http = HTTPConnection("localhost")
        self._http.auto_open = 0  # it would look for a TCP port
        self._http.sock = self._socket

    def _ask(self, path: str, body: msgspec.Struct | None = None) -> HTTPResponse:
        from http.client import HTTPException, RemoteDisconnected  # noqa: PLC0415 - imported already

        if self._http is None:
            raise self._lost()
        try:
            try:
                if body is None:
                    self._http.request("GET", path)
                else:
                    headers = {"Content-Type": "application/json"}
                    self._http.request("POST", path, msgspec.json.encode(body), headers)
            except BrokenPipeError:
                pass  # it hung up, and may have said why
            response = self._http.getresponse()
        except TimeoutError:
            raise self._silent() from None
        except (OSError, RemoteDisconnected):
            raise self._lost() from None
        except HTTPException as error:
            raise self._confused(str(error) or type(error).__name__) from None
        self._check(response)
        return response

    def _check(self, response: HTTPResponse) -> None:
        speaks = response.getheader(API_HEADER, "")
        if not speaks.isdecimal():
            raise self._confused(f"it answers {response.status} and no {API_HEADER}")
        if int(speaks) != API:
            age = "newer" if int(speaks) > API else "older"
            daemon = response.getheader("Server", "userproxy/unknown").replace("/", " ")
            raise AdminError(
                f"the daemon at {self._path} is {age} ({daemon}) than this command ({__version__}): "
                "use the same version on both sides"
            )
        if response.status >= 400:  # noqa: PLR2004 - as HTTP has it
            failure = self._decoded(self._whole(response), msgspec.json.Decoder(Failure))
            raise AdminError(" ".join(f"{failure.error}: {failure.remedy}".split()))

    def _whole(self, response: HTTPResponse) -> bytes:
        body = b""
        while piece := self._read(response):
            body += piece
            if len(body) > _LONGEST:
                raise self._confused(f"an answer of more than {_LONGEST} bytes")
        response.close()  # as above
        return body

    def _read(self, response: HTTPResponse) -> bytes:
        from http.client import HTTPException  # noqa: PLC0415 - imported already

        try:
            piece = response.read1(_PIECE)
        except TimeoutError:
            raise self._silent() from None
        except (OSError, HTTPException):
            raise self._lost() from None
        if not piece and response.length:
            raise self._lost()  # it announced more
        return piece

    def _decoded(self, line: bytes, decoder: msgspec.json.Decoder[_Kind]) -> _Kind:
        try:
            return decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._confused(str(error)) from None

    def _lost(self) -> AdminError:
        return AdminError(f"lost the connection to {self._path}: see the daemon's log, and try again")

    def _silent(self) -> AdminError:
        return AdminError(
            f"the daemon at {self._path} does not answer within {self._timeout:g} s: "
            "see its log, and try again"
        )

    def _confused(self, what: str) -> AdminError:
        return AdminError(
            f"what answers at {self._path} is not understood ({' '.join(what.split())}): "
            f"is it a daemon of this version, userproxy {__version__}?"
        )


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
