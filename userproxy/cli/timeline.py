"""One connection as a story: what happened, when, and how it ended. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userproxy.cli.tables import printable
from userproxy.model.endings import ENDINGS, Reason
from userproxy.model.human import human_age, human_bytes
from userproxy.model.service import Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.model.records import AttemptRow, RecordRow

_ERRORS = {
    "": "answered after {}",
    "refused": "refused after {}",
    "timeout": "no answer within {}",
    "reset": "reset after {}",
    "unreachable": "no route to it, after {}",
    "given-up": "given up after {}",
}

_MILLISECONDS = 1000.0
_UNKNOWN = "before".ljust(29)
"""In the place of a time."""


class _Event(NamedTuple):
    """What happened, so many milliseconds after the client was accepted."""

    at: float
    text: str


def story(row: RecordRow) -> str:
    """All that is known of a connection, in lines."""
    return "\n".join((*_head(row), "", *_events(row)))


def meaning(reason: str) -> str:
    """What a reason for an end means; the reason itself, if this version does not know it."""
    try:
        return ENDINGS[Reason(reason)].text
    except ValueError:
        return reason


def _head(row: RecordRow) -> Iterator[str]:
    state = f"ended: {row.reason}" if row.reason else f"live: {row.state}"
    yield f"{row.id}  {row.protocol}  {row.service}  {state}"
    yield ""
    for name in ("client", "frontend", "listener", "source", "backend"):
        yield f"  {name:<9} {printable(getattr(row, name) or '')}"
    datagrams = (
        "" if row.datagrams_up is None else f", in {row.datagrams_up} and {row.datagrams_down} datagrams"
    )
    if row.packets_up is not None:
        datagrams = f", in {row.packets_up} and {row.packets_down} packets"
    if row.bytes_up is None or row.bytes_down is None:
        yield f"  {'bytes':<9} not known: the kernel counts them with net.netfilter.nf_conntrack_acct=1"
    else:
        yield f"  {'bytes':<9} {human_bytes(row.bytes_up)} up, {human_bytes(row.bytes_down)} down{datagrams}"
    if row.path != Path.REDIRECT_TO_HOST.value:
        yield f"  {'path':<9} {row.path}: the kernel carried it"


def _events(row: RecordRow) -> Iterator[str]:
    started = row.started_at or _UNKNOWN
    yield f"  {started}  {_begin(row)} from {row.client}"
    indent = " " * len(started)
    for event in sorted(_between(row), key=lambda event: event.at):
        yield f"  {_offset(event.at):>{len(indent)}}  {event.text}"
    if row.reason:
        lived = _span(row.duration_seconds * _MILLISECONDS)
        least = "at least " if "duration_seconds" in row.unknown else ""
        yield f"  {row.ended_at}  {meaning(row.reason)} (it lived {least}{lived})"
    else:
        yield f"  {indent}  it lives, for {human_age(row.duration_seconds)} now"


def _begin(row: RecordRow) -> str:
    if row.protocol == "UDP":
        return "first datagram"
    return "accepted" if row.path == Path.REDIRECT_TO_HOST.value else "first packet"


def _between(row: RecordRow) -> Iterator[_Event]:
    for attempt in row.attempts:
        yield _Event(attempt.at_ms, _dialled(attempt, row))
    if row.attempts_left_out:
        yield _Event(
            row.attempts[-1].at_ms, f"{row.attempts_left_out} other dials before that came to nothing"
        )
    if row.first_byte_up_ms is not None and row.protocol == "TCP":
        yield _Event(row.first_byte_up_ms, "first bytes of the client")
    if row.first_byte_down_ms is not None:
        what = "bytes" if row.protocol == "TCP" else "datagram"
        yield _Event(row.first_byte_down_ms, f"first {what} of the backend")
    if row.half_closed_ms is not None:
        yield _Event(row.half_closed_ms, f"the {row.half_closed_by} finished sending")


def _dialled(attempt: AttemptRow, row: RecordRow) -> str:
    relayed = row.protocol == "TCP" and row.path == Path.REDIRECT_TO_HOST.value
    verb = "dialled" if relayed else "sent to"
    outcome = _ERRORS.get(attempt.error, f"{attempt.error} after {{}}").format(_span(attempt.ms))
    return f"{verb} {attempt.backend}: {outcome}"


def _offset(milliseconds: float) -> str:
    return f"+{_span(milliseconds)}"


def _span(milliseconds: float) -> str:
    """A duration in three digits or so."""
    if milliseconds < _MILLISECONDS:
        return f"{milliseconds:.3g} ms"
    seconds = milliseconds / _MILLISECONDS
    return f"{seconds:.2f} s" if seconds < 60 else human_age(seconds)  # noqa: PLR2004 - a minute
