"""What is known of one connection, from its beginning to its end: as it is kept, and as it is shown. Pure.

A worker keeps some thousands of connections that are over, so `Record` is small once it is encoded: numbers
and addresses. `row_of` makes of it what an operator and the access log get to see.
"""

from __future__ import annotations

import errno
import ipaddress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.connection_id import KERNEL_PREFIX, ConnectionId
from userproxy.model.endings import ENDINGS, Reason
from userproxy.model.service import Path, Protocol, ServicePortName

if TYPE_CHECKING:
    from userproxy.model.rows import ConnectionRow

_SOCKADDR_IN = 16
"""Bytes of an IPv4 `sockaddr`; one of IPv6 has more (linux/in.h, linux/in6.h)."""

GIVEN_UP = -1
"""In the place of an errno: another dial was answered first, or the connection ended before this one was."""

BY_KERNEL = 0
"""In the place of a worker's pid: the kernel carried it, and numbered it."""

MOST_ATTEMPTS = 16
"""Dials of one connection that are told: all of a thousand backends may refuse."""

DIAL_ERRORS = {
    GIVEN_UP: "given-up",
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}
"""By errno, how a dial failed; others are called `other`, or by the errno's own name."""


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One dial that came to nothing.

    Attributes:
        backend: that was dialled.
        began: seconds after the client was accepted.
        seconds: that it took.
        error: its errno, or `GIVEN_UP`.
    """

    backend: Address
    began: float
    seconds: float
    error: int


class Timeline(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, omit_defaults=True):
    """What happened when: times are in seconds after the client was accepted; None: it did not happen.

    Attributes:
        attempts: the dials that came to nothing, in the order in which they did; the first and the last.
        left_out: how many others there were.
        connected: when a backend answered.
        dial: how long that one took for it.
        first_up: when bytes of the client came first.
        first_down: when bytes of the backend came first.
        half_closed: when one side had finished.
        by_client: whether that was the client.
        asked: of UDP: datagrams from the client.
        answered: of UDP: datagrams from backends.
    """

    attempts: tuple[Attempt, ...] = ()
    connected: float | None = None
    dial: float | None = None
    first_up: float | None = None
    first_down: float | None = None
    half_closed: float | None = None
    by_client: bool = False
    asked: int = 0
    answered: int = 0
    left_out: int = 0


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, omit_defaults=True):
    """One connection or session. What begins with `client` is what it tells of itself, as its `facts`.

    Attributes:
        pid: of the worker, as it calls itself; `BY_KERNEL`: the kernel's number is known.
        number: unique in that worker, or the kernel's.
        service: whose traffic it was.
        protocol: that it spoke.
        listener: where it was accepted.
        began: seconds since the epoch.
        seconds: that it lived, until now if it does.
        client: the client's address.
        original: the original destination as the kernel gives it, a `sockaddr` of 16 or 28 bytes, if it does.
        source: our own address on the backend's side, if there was one.
        backend: where it went, if it went anywhere.
        bytes_up: from the client; None: nobody counted them.
        bytes_down: from the backend; likewise.
        reason: why it ended; None while it lives.
        state: where it is in its life.
        timeline: what happened when.
        path: by which it went.
        packets_up: from the client, if it was carried by the kernel, and that counts.
        packets_down: from the backend, likewise.
        found: its beginning was not seen: it began some time before `began`.
    """

    pid: int
    number: int
    service: ServicePortName
    protocol: Protocol
    listener: Address | None
    began: float
    seconds: float
    client: Address
    original: bytes | None = None
    source: Address | None = None
    backend: Address | None = None
    bytes_up: int | None = 0
    bytes_down: int | None = 0
    reason: Reason | None = None
    state: str = "closed"
    timeline: Timeline = Timeline()
    path: Path = Path.REDIRECT_TO_HOST
    packets_up: int | None = None
    packets_down: int | None = None
    found: bool = False

    @property
    def id(self) -> str:
        """What an operator calls it."""
        if self.pid == BY_KERNEL:
            return f"{KERNEL_PREFIX}{self.number}"
        return str(ConnectionId(self.pid, self.number))

    @property
    def ended(self) -> float:
        """When it was over, in seconds since the epoch."""
        return self.began + self.seconds

    @property
    def frontend(self) -> Address | None:
        """The original destination, if that is known."""
        original = self.original
        if original is None:
            return None
        port = int.from_bytes(original[2:4])
        if len(original) == _SOCKADDR_IN:
            return Address(str(ipaddress.IPv4Address(original[4:8])), port)
        return Address(str(ipaddress.IPv6Address(original[8:24])), port)


Facts = tuple[
    tuple[str, int],
    bytes | None,
    tuple[str, int] | None,
    Address | None,
    int,
    int,
    Reason | None,
    str,
    tuple[
        tuple[Attempt, ...],
        float | None,
        float | None,
        float | None,
        float | None,
        float | None,
        bool,
        int,
        int,
        int,
    ],
]
"""What a connection tells of itself: the fields of `Record` from `client` on, those of `Timeline` among them.

In the form in which they are at hand, as thousands are told of a second: encoded they are the same.
"""


CarriedFields = tuple[
    int,
    int,
    ServicePortName,
    Protocol,
    None,
    float,
    float,
    tuple[str, int],
    bytes,
    Address | tuple[str, int] | None,
    Address | None,
    int | None,
    int | None,
    Reason,
    str,
    tuple[tuple[Attempt, ...], float | None, float | None],
    Path,
    int | None,
    int | None,
    bool,
]
"""A record of a connection that the kernel carried: the fields of `Record`, and the first ones of `Timeline`.

To make and encode a `Record` itself takes twice as long.
"""


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One dial.

    Attributes:
        backend: that was dialled.
        error: empty if it was answered, or else how it failed: one of `DIAL_ERRORS`, or the name of an errno.
        at_ms: when it began, after the client was accepted.
        ms: how long it took.
    """

    backend: str
    error: str
    at_ms: float
    ms: float


class RecordRow(msgspec.Struct, frozen=True, kw_only=True):
    """One connection or session with its timeline: `connections --ended` and `show`, and the access log.

    What `ConnectionRow` has too means the same. Times named `..._ms` are milliseconds after the client was
    accepted, None if it did not happen.

    Attributes:
        ended_at: RFC 3339, UTC; empty while it lives.
        duration_seconds: from accepted to over, or until now.
        attempts: the dials, in order; the last one is answered if any is.
        attempts_left_out: how many are not told, before the last one that is.
        dial_ms: how long the dial took that was answered.
        connected_ms: when it was answered.
        first_byte_up_ms: when the client's first bytes came.
        first_byte_down_ms: when the backend's first bytes came.
        half_closed_by: `client` or `backend`, whichever finished first; empty if none had.
        half_closed_ms: when it did.
        datagrams_up: of UDP: from the client.
        datagrams_down: of UDP: from backends.
        reason: why it ended, one of docs/ends.md; empty while it lives.
        ended_by: `client`, `backend`, `operator`, `userproxy`, or `unknown`; empty while it lives.
        packets_up: on the path steered: from the client, where the kernel counts (`nf_conntrack_acct=1`).
        packets_down: likewise, from the backend.
        unknown: the fields of this row whose figures are not known: of `duration_seconds`, which then holds
            the least that it can be; and of `bytes_up` and `bytes_down`, which are null.
    """

    id: str
    protocol: str
    service: str
    client: str
    frontend: str
    listener: str | None
    source: str
    backend: str
    state: str
    path: str
    started_at: str
    ended_at: str
    duration_seconds: float
    attempts: tuple[AttemptRow, ...]
    attempts_left_out: int
    dial_ms: float | None
    connected_ms: float | None
    first_byte_up_ms: float | None
    first_byte_down_ms: float | None
    half_closed_by: str
    half_closed_ms: float | None
    bytes_up: int | None
    bytes_down: int | None
    datagrams_up: int | None = None
    datagrams_down: int | None = None
    reason: str
    ended_by: str
    packets_up: int | None = None
    packets_down: int | None = None
    unknown: tuple[str, ...] = ()


def row_of(record: Record) -> RecordRow:
    """What others get to see of it."""
    timeline, reason = record.timeline, record.reason
    counts_datagrams = record.protocol is Protocol.UDP and record.path is Path.REDIRECT_TO_HOST
    half_closed = timeline.half_closed is not None
    return RecordRow(
        id=record.id,
        protocol=record.protocol.value,
        service=str(record.service),
        client=str(record.client),
        frontend=shown(record.frontend),
        listener=shown(record.listener) or None,
        source=shown(record.source),
        backend=shown(record.backend),
        state=record.state,
        path=record.path.value,
        started_at="" if record.found else moment(record.began),
        ended_at=moment(record.ended) if reason else "",
        duration_seconds=round(record.seconds, 6),
        attempts=attempts_of(record),
        attempts_left_out=timeline.left_out,
        dial_ms=milliseconds(timeline.dial),
        connected_ms=milliseconds(timeline.connected),
        first_byte_up_ms=milliseconds(timeline.first_up),
        first_byte_down_ms=milliseconds(timeline.first_down),
        half_closed_by=("client" if timeline.by_client else "backend") if half_closed else "",
        half_closed_ms=milliseconds(timeline.half_closed),
        bytes_up=record.bytes_up,
        bytes_down=record.bytes_down,
        datagrams_up=timeline.asked if counts_datagrams else None,
        datagrams_down=timeline.answered if counts_datagrams else None,
        reason=reason.value if reason else "",
        ended_by=ENDINGS[reason].by.value if reason else "",
        packets_up=record.packets_up,
        packets_down=record.packets_down,
        unknown=(("duration_seconds",) if record.found else ())
        + (("bytes_up", "bytes_down") if record.bytes_up is None else ()),
    )


def row_of_flow(row: ConnectionRow) -> RecordRow:
    """What is known of a live connection that netfilter carries to a pod by itself."""
    return RecordRow(
        id=row.id,
        protocol=row.protocol,
        service=row.service,
        client=row.client,
        frontend=row.frontend,
        listener=None,
        source=row.source,
        backend=row.backend,
        state=row.state,
        path=row.path,
        started_at=row.started_at,
        ended_at="",
        duration_seconds=row.age_seconds,
        attempts=(),
        attempts_left_out=0,
        dial_ms=None,
        connected_ms=None,
        first_byte_up_ms=None,
        first_byte_down_ms=None,
        half_closed_by="",
        half_closed_ms=None,
        bytes_up=row.bytes_up,
        bytes_down=row.bytes_down,
        reason="",
        ended_by="",
        unknown=tuple(_AGES.get(field, field) for field in row.unknown),
    )


_AGES = {"age_seconds": "duration_seconds"}
"""What is the same of a live connection and of a record."""


def moment(seconds: float) -> str:
    """A time as it is shown: RFC 3339, UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def error_name(error: int) -> str:
    """How a dial failed, by its errno."""
    return DIAL_ERRORS.get(error) or errno.errorcode.get(error, "other")


def attempts_of(record: Record) -> tuple[AttemptRow, ...]:
    """Its dials, in order."""
    timeline = record.timeline
    found = [
        AttemptRow(
            backend=str(one.backend),
            error=error_name(one.error),
            at_ms=_round_ms(one.began),
            ms=_round_ms(one.seconds),
        )
        for one in timeline.attempts
    ]
    if timeline.connected is not None and timeline.dial is not None:
        began = timeline.connected - timeline.dial
        found.append(
            AttemptRow(
                backend=shown(record.backend),
                error="",
                at_ms=_round_ms(began),
                ms=_round_ms(timeline.dial),
            )
        )
    return tuple(found)


def shown(address: Address | None) -> str:
    """An address as text; empty if there is none."""
    return str(address) if address else ""


def milliseconds(seconds: float | None) -> float | None:
    """A time as it is shown."""
    return None if seconds is None else _round_ms(seconds)


def _round_ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
