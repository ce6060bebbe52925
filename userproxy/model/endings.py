"""Why a connection or a session ended: a closed enumeration, for the log, the metrics and the operator. Pure.

`docs/ends.md` is made from it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class EndedBy(enum.StrEnum):
    """Who ended a connection."""

    CLIENT = "client"
    BACKEND = "backend"
    OPERATOR = "operator"
    USERPROXY = "userproxy"
    UNKNOWN = "unknown"


class Reason(enum.StrEnum):
    """Why a connection or a session ended. The values are an interface: others may come, none is renamed."""

    CLIENT_FIN = "client-fin"
    BACKEND_FIN = "backend-fin"
    CLIENT_RESET = "client-reset"
    BACKEND_RESET = "backend-reset"
    RESET = "reset"
    FORGOTTEN = "forgotten"
    CLIENT_LOST = "client-lost"
    BACKEND_LOST = "backend-lost"
    DIAL_FAILED = "dial-failed"
    NO_BACKEND = "no-backend"
    HOLD_FULL = "hold-full"
    HOLD_EXPIRED = "hold-expired"
    CLIENT_GONE = "client-gone"
    NOT_GREETED = "not-greeted"
    TOO_MANY = "too-many"
    LINGER = "linger"
    AGED = "aged"
    BACKEND_REMOVED = "backend-removed"
    KILLED = "killed"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    IDLE = "idle"
    ANSWERED = "answered"
    EVICTED = "evicted"
    LISTENER_CLOSED = "listener-closed"
    HANDED_OVER = "handed-over"


class Ending(NamedTuple):
    """What a reason means.

    Attributes:
        by: who ended it.
        text: what happened, in a sentence without its end.
        orderly: whether it ended as connections should: `--access-log errors` has the others alone.
    """

    by: EndedBy
    text: str
    orderly: bool = False


_CLIENT, _BACKEND, _OURS = EndedBy.CLIENT, EndedBy.BACKEND, EndedBy.USERPROXY
_BOTH = "both sides got a reset"

ENDINGS: dict[Reason, Ending] = {
    Reason.CLIENT_FIN: Ending(_CLIENT, "complete: the client finished first, then the backend", orderly=True),
    Reason.BACKEND_FIN: Ending(
        _BACKEND, "complete: the backend finished first, then the client", orderly=True
    ),
    Reason.CLIENT_RESET: Ending(_CLIENT, "the client reset it, which was passed on to the backend"),
    Reason.BACKEND_RESET: Ending(_BACKEND, "the backend reset it, which was passed on to the client"),
    Reason.RESET: Ending(
        EndedBy.UNKNOWN,
        "steered: the client or the backend reset it, and the kernel, which carried it, does not tell which",
    ),
    Reason.FORGOTTEN: Ending(
        EndedBy.UNKNOWN,
        "steered: the kernel carries it no longer: its time was over without a packet, somebody deleted its "
        "entry in conntrack, or its end was not heard",
        orderly=True,
    ),
    Reason.CLIENT_LOST: Ending(
        _CLIENT, "the client answered neither keepalive nor data any more, or no route leads there"
    ),
    Reason.BACKEND_LOST: Ending(
        _BACKEND,
        "the backend answered neither keepalive nor data any more, or no route leads there: "
        "the client got a reset",
    ),
    Reason.DIAL_FAILED: Ending(
        _BACKEND,
        "no backend was reached: all that were tried refused or did not answer in time, "
        "and the client got a reset",
    ),
    Reason.NO_BACKEND: Ending(
        _OURS,
        "the Service had no backend any more, or userproxy no file for a connection to one: "
        "the client got a reset",
    ),
    Reason.HOLD_FULL: Ending(
        _OURS,
        "the Service had no endpoints, and as many clients waited as `hold-connections` allows: "
        "the client got a reset",
    ),
    Reason.HOLD_EXPIRED: Ending(
        _OURS, "no endpoint came within the Service's `hold-timeout`: the client got a reset"
    ),
    Reason.CLIENT_GONE: Ending(
        _CLIENT, "the client gave up while it waited for the Service to have endpoints"
    ),
    Reason.NOT_GREETED: Ending(
        _CLIENT,
        "the balancer in front did not say who the client is, by the PROXY protocol, or not in time: "
        "it got a reset",
    ),
    Reason.TOO_MANY: Ending(
        _OURS,
        "the client had as many connections as `max-connections-per-client` allows, or, steered, "
        "the Service as many as `max-connections`: the client got a reset",
    ),
    Reason.LINGER: Ending(
        _OURS, f"one side had finished, and nothing moved for `--linger-seconds` after that: {_BOTH}"
    ),
    Reason.AGED: Ending(_OURS, f"it reached the Service's `max-connection-age`: {_BOTH}"),
    Reason.BACKEND_REMOVED: Ending(
        _OURS, f"its pod had been gone for as long as the Service's `close-on-removal` says: {_BOTH}"
    ),
    Reason.KILLED: Ending(EndedBy.OPERATOR, f"`userproxy kill`: {_BOTH}"),
    Reason.SHUTDOWN: Ending(_OURS, f"the daemon stopped, and `--drain-seconds` were over: {_BOTH}"),
    Reason.FAILED: Ending(_OURS, f"something failed in userproxy itself, and its log says what: {_BOTH}"),
    Reason.IDLE: Ending(
        _OURS, "UDP: nothing was heard of the client, nor of its pod, for the idle time", orderly=True
    ),
    Reason.ANSWERED: Ending(_BACKEND, "UDP, of DNS: each question had its answer", orderly=True),
    Reason.EVICTED: Ending(
        _OURS,
        "UDP: another client needed the room: `--udp-sessions`, `max-connections`, or open files",
    ),
    Reason.LISTENER_CLOSED: Ending(
        _OURS, "UDP: the Service is gone, or its listener, and with it the way back to the client"
    ),
    Reason.HANDED_OVER: Ending(
        _OURS, "UDP, at a restart: another worker goes on with it, under another id", orderly=True
    ),
}
"""By reason, what it means."""

RECORDED = tuple(reason for reason in Reason if reason is not Reason.HANDED_OVER)
"""Those for which connections are found among those that are over."""
