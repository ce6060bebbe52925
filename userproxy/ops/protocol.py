"""What is said over the admin socket: frames of JSON, a greeting, requests and their answers.

The daemon speaks first: a `Hello`, or an `Error` if it has no room for another client. Then the client sends
requests, one after another, and each is answered by any number of frames of rows and an `End`, or by an
`Error`, after which the daemon hangs up. A frame is its length (4 bytes, big-endian) and so many bytes of
JSON.
"""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec

from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow

PROTOCOL = 1
"""Goes up when old and new would misunderstand each other; not for one more field or request."""

DEFAULT_PATH = "/run/userproxy/admin.sock"

MAX_REQUEST = 64 * 1024
"""Bytes of a request, without its length."""

MAX_ANSWER = 1024 * 1024
"""Bytes of one frame of an answer, without its length. Long answers take several frames."""

LENGTH = struct.Struct("!I")

_QUOTED = 300
"""Characters of a message about someone else's bytes, which may quote them."""


class ProtocolError(Exception):
    """The other side sent something that is no message. The text says what, in one line."""


class GetConnections(msgspec.Struct, frozen=True, tag="connections"):
    """Asks for the live connections that match; answered by `ConnectionRows`."""

    filter: ConnectionFilter = ConnectionFilter()


class GetServices(msgspec.Struct, frozen=True, tag="services"):
    """Asks for the Service ports; answered by `ServiceRows`."""


class GetBackends(msgspec.Struct, frozen=True, tag="backends"):
    """Asks for the backends; answered by `BackendRows`."""


class GetStatus(msgspec.Struct, frozen=True, tag="status"):
    """Asks for the daemon's state; answered by one `StatusAnswer`."""


class KillRequest(msgspec.Struct, frozen=True, tag="kill"):
    """Has connections reset; answered by one `KillAnswer`, or refused if it names nothing in particular.

    Attributes:
        ids: of the connections, or None: whichever match the filter.
        filter: what they must have.
    """

    ids: tuple[str, ...] | None = None
    filter: ConnectionFilter = ConnectionFilter()


class DrainRequest(msgspec.Struct, frozen=True, tag="drain"):
    """Drains a pod, or undoes that; answered by one `DrainAnswer`.

    Attributes:
        backend: the pod; with port `ANY_PORT`, all of its ports.
        undo: bring it back.
    """

    backend: Address
    undo: bool = False


Request = GetConnections | GetServices | GetBackends | GetStatus | KillRequest | DrainRequest


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The daemon's greeting: the protocol it speaks, and its own version."""

    protocol: int
    version: str


class ConnectionRows(msgspec.Struct, frozen=True, tag="connection-rows"):
    """Some of the connections."""

    rows: list[ConnectionRow]


class ServiceRows(msgspec.Struct, frozen=True, tag="service-rows"):
    """Some of the Service ports."""

    rows: list[ServiceRow]


class BackendRows(msgspec.Struct, frozen=True, tag="backend-rows"):
    """Some of the backends."""

    rows: list[BackendRow]


class StatusAnswer(msgspec.Struct, frozen=True, tag="status-answer"):
    """The daemon's state."""

    row: StatusRow


class KillAnswer(msgspec.Struct, frozen=True, tag="killed"):
    """What killing came to.

    Attributes:
        count: how many connections were reset.
        beyond: how many others were meant, which netfilter carries to pods: nothing of ours can end them.
    """

    count: int
    beyond: int = 0


class DrainAnswer(msgspec.Struct, frozen=True, tag="drain-answer"):
    """What a drain means: for how many backends, and how many connections go on at them."""

    backends: int
    connections: int


class End(msgspec.Struct, frozen=True, tag="end"):
    """The answer is complete."""


class Error(msgspec.Struct, frozen=True, tag="error"):
    """The request failed: one line for a person, with the remedy."""

    message: str


Rows = ConnectionRows | ServiceRows | BackendRows
Answer = (
    Hello | ConnectionRows | ServiceRows | BackendRows | StatusAnswer | KillAnswer | DrainAnswer | End | Error
)

_Message = TypeVar("_Message")
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()


def request_frame(request: Request) -> bytes:
    """A request as it goes over the socket.

    Raises:
        ProtocolError: it is longer than `MAX_REQUEST`.
    """
    return _frame(_encoder.encode(request), MAX_REQUEST)


def answer_frame(answer: Answer) -> bytes:
    """One message of an answer as it goes over the socket.

    Raises:
        ProtocolError: it is longer than `MAX_ANSWER`.
    """
    return _frame(_encoder.encode(answer), MAX_ANSWER)


def row_frames(answer: Rows) -> list[bytes]:
    """Rows as they go over the socket: in as many frames as `MAX_ANSWER` takes.

    Raises:
        ProtocolError: one row alone is longer than that.
    """
    encoded = _encoder.encode(answer)
    if len(encoded) <= MAX_ANSWER or len(answer.rows) <= 1:
        return [_frame(encoded, MAX_ANSWER)]
    half = len(answer.rows) // 2
    first = msgspec.structs.replace(answer, rows=answer.rows[:half])
    second = msgspec.structs.replace(answer, rows=answer.rows[half:])
    return row_frames(first) + row_frames(second)


def frame_length(header: bytes, limit: int) -> int:
    """The length that a frame announces in its first four bytes.

    Raises:
        ProtocolError: it is 0 or more than limit.
    """
    (length,) = LENGTH.unpack(header)
    if not 0 < length <= limit:
        raise ProtocolError(f"a message of {length} bytes, where 1 to {limit} are allowed")
    return int(length)


def decode_request(payload: bytes) -> Request:
    """Read the JSON of a request.

    Raises:
        ProtocolError: it is none that this version knows.
    """
    return _decode(_requests, payload)


def decode_answer(payload: bytes) -> Answer:
    """Read the JSON of one message of an answer.

    Raises:
        ProtocolError: it is none that this version knows.
    """
    return _decode(_answers, payload)


def _frame(payload: bytes, limit: int) -> bytes:
    if len(payload) > limit:
        raise ProtocolError(f"a message of {len(payload)} bytes, where 1 to {limit} are allowed")
    return LENGTH.pack(len(payload)) + payload


def _decode(decoder: msgspec.json.Decoder[_Message], payload: bytes) -> _Message:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(" ".join(str(error).split())[:_QUOTED]) from None
