"""The access log's line: what it says of a connection that is over, and in which order. Pure.

The names are an interface that others' programs lean on: fields may be added, none is renamed.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from userproxy.model.endings import ENDINGS, Reason
from userproxy.model.records import AttemptRow, Record, attempts_of, milliseconds, shown

EVENT = "connection ended"

_PADDING = 30
"""Of the event on a console, as the ordinary log has it."""


class AccessLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line: the first three fields are those of every line of the log, the others are of the connection.

    Attributes:
        timestamp: when it ended, RFC 3339, UTC.
        level: `info`, or `warning` if it did not end as connections should.
        event: always `connection ended`.
        id: as `userproxy connections` calls it.
        protocol: `TCP` or `UDP`.
        service: `NAMESPACE/NAME[:PORT]`.
        client: the client's address.
        frontend: the original destination; empty for UDP, where a worker does not know it.
        listener: our host port.
        source: our own address on the backend's side, which the pod's log has as its client.
        backend: the pod; empty if none was reached.
        attempts: the dials, in order: `backend`, `error` (empty if it was answered), `at_ms`, `ms`.
        attempts_left_out: how many are not told, before the last one that is.
        dial_ms: how long the dial took that was answered; null if none was.
        first_byte_ms: when the backend's first bytes came, after the client was accepted; null: none did.
        bytes_up: from client to backend; null where nobody counts: steered, without `nf_conntrack_acct=1`.
        bytes_down: from backend to client, likewise.
        duration_seconds: from accepted to over; null where the beginning was not seen.
        reason: why it ended, one of docs/ends.md.
        ended_by: `client`, `backend`, `operator`, `userproxy`, or `unknown`.
        path: `redirect-to-host` or `steered`.
    """

    timestamp: str
    level: str
    event: str
    id: str
    protocol: str
    service: str
    client: str
    frontend: str
    listener: str | None
    source: str
    backend: str
    attempts: tuple[AttemptRow, ...]
    attempts_left_out: int
    dial_ms: float | None
    first_byte_ms: float | None
    bytes_up: int | None
    bytes_down: int | None
    duration_seconds: float | None
    reason: str
    ended_by: str
    path: str


_encode = msgspec.json.Encoder().encode


def line_of(record: Record) -> AccessLine:
    """What the log says of it."""
    reason, timeline, listener = record.reason or Reason.FAILED, record.timeline, record.listener
    ending = ENDINGS[reason]
    return AccessLine(
        timestamp=datetime.fromtimestamp(record.ended, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
        level="info" if ending.orderly else "warning",
        event=EVENT,
        id=record.id,
        protocol=record.protocol.value,
        service=str(record.service),
        client=str(record.client),
        frontend=shown(record.frontend),
        listener=str(listener) if listener else None,
        source=shown(record.source),
        backend=shown(record.backend),
        attempts=attempts_of(record),
        attempts_left_out=timeline.left_out,
        dial_ms=milliseconds(timeline.dial),
        first_byte_ms=milliseconds(timeline.first_down),
        bytes_up=record.bytes_up,
        bytes_down=record.bytes_down,
        duration_seconds=None if record.found else round(record.seconds, 6),
        reason=reason.value,
        ended_by=ending.by.value,
        path=record.path.value,
    )


def as_json(line: AccessLine) -> bytes:
    """As an object on a line."""
    return _encode(line) + b"\n"


def as_text(line: AccessLine) -> bytes:
    """For a person, as the ordinary log has it on a console; what is empty is left out."""
    fields = msgspec.structs.asdict(line)
    head = f"{fields.pop('timestamp')} [{fields.pop('level'):<9}] {fields.pop('event'):<{_PADDING}}"
    fields["attempts"] = ",".join(map(_attempt, line.attempts))
    fields["attempts_left_out"] = line.attempts_left_out or None
    shown = (f"{name}={value}" for name, value in fields.items() if value not in ("", None))
    return f"{head} {' '.join(shown)}\n".encode()


def _attempt(one: AttemptRow) -> str:
    return f"{one.backend}:{one.error or 'answered'}:{one.ms:g}ms"
