"""Listing the connections that the kernel carries to pods by itself.

What is known of them is what conntrack keeps: bytes only where accounting is on (`nf_conntrack_acct=1`), the
time of their beginning only where timestamps are (`nf_conntrack_timestamp=1`). Neither is switched on here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.ruleset.chains import STATUS_DNAT
from userproxy.netfilter.ruleset.steering import STATUS_ASSURED, STATUS_SEEN_REPLY
from userproxy.netfilter.wire.netlink import RefusedError, Socket, attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SINGLE_DUMPS = 8
"""Up to so many frontends the kernel is asked for each one's flows; for more, once for all."""

STATES = {
    1: "connecting",  # SYN_SENT
    2: "connecting",  # SYN_RECV
    3: "established",
    4: "half-closed",  # FIN_WAIT: one side has finished, and conntrack does not tell which
    5: "half-closed",  # CLOSE_WAIT: and the other one has acknowledged it
    6: "closing",  # LAST_ACK: both have finished
    9: "connecting",  # SYN_SENT2: both ends have sent a SYN
}
"""TCP states of conntrack (enum tcp_conntrack). One that is missing is over: TIME_WAIT, CLOSE."""

_BATCH = 100
_TCP, _TCP_STATE, _BYTES, _STARTED = 1, 1, 2, 1
_SETTINGS = Path("/proc/sys/net/netfilter")
_TIMEOUTS = {
    1: "tcp_timeout_syn_sent",
    2: "tcp_timeout_syn_recv",
    3: "tcp_timeout_established",
    4: "tcp_timeout_fin_wait",
    5: "tcp_timeout_close_wait",
    6: "tcp_timeout_last_ack",
    9: "tcp_timeout_syn_sent",
}
_UNACKNOWLEDGED = "tcp_timeout_unacknowledged"
_UDP, _UDP_STREAM = "udp_timeout", "udp_timeout_stream"


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that the kernel translates.

    Attributes:
        id: of the kernel; no other entry has it as long as this one lives.
        client: who opened it.
        frontend: the original destination.
        source: the client as the pod sees it.
        backend: the pod.
        state: one of `STATES`, or for UDP `unreplied`, `replied` (both ways), `assured` (for some seconds).
        started: seconds since the epoch; None where the kernel does not note it.
        idle: whole seconds since the last packet, in either direction, rounded up.
        bytes_up: of the packets from the client, with their IP headers; 0 where the kernel does not count.
        bytes_down: of those from the pod.
        counted: whether the kernel counts the bytes.
    """

    id: int
    client: Address
    frontend: Frontend
    source: Address
    backend: Address
    state: str
    started: float | None
    idle: float
    bytes_up: int
    bytes_down: int
    counted: bool


def flows(frontends: Collection[Frontend] = ()) -> list[Flow]:
    """The translated connections to these frontends, or to anything at all; those that are over left out.

    Blocks while it reads; for any thread, in which it gives way to the others again and again.

    Raises:
        NetfilterError: they cannot be read.
    """
    questions = {entry.question(status=entry.TRANSLATED)}
    # Conntrack does not know which packets came from outside.
    asked = {(each.protocol, each.address) for each in frontends}
    if 0 < len(asked) <= SINGLE_DUMPS:
        questions = {entry.question(protocol, address, entry.TRANSLATED) for protocol, address in asked}
    try:
        connection = Socket(entry.NETLINK_NETFILTER)
        try:
            bodies = [body for each in questions for body in connection.dump(each)]
        finally:
            connection.close()
        timeouts = _timeouts()
    except (RefusedError, OSError) as error:
        raise NetfilterError(f"cannot read the connections that the kernel tracks: {error}") from error
    found = []
    for number, body in enumerate(bodies):
        if number % _BATCH == 0:
            time.sleep(0)  # lets go of the interpreter: the event loop waits for it
        flow = flow_of(body, timeouts)
        if flow is not None and (not asked or (flow.frontend.protocol, flow.frontend.address) in asked):
            found.append(flow)
    return found


def flow_of(body: bytes, timeouts: Mapping[str, int]) -> Flow | None:
    """Read one listed entry; None if it is not translated, or over.

    Args:
        body: as the kernel lists it.
        timeouts: the kernel's settings, in seconds, by the names in /proc/sys without `nf_conntrack_`.
    """
    fields = entry.fields_of(body)
    original = entry.direction(fields.get(entry.ORIGINAL, b""))
    reply = entry.direction(fields.get(entry.REPLY, b""))
    status = entry.status_of(fields)
    if original is None or reply is None or not status & STATUS_DNAT:
        return None
    if original.protocol is Protocol.TCP:
        tcp = dict(attributes(dict(attributes(fields.get(entry.PROTOCOL_INFO, b""))).get(_TCP, b"")))
        number = _number(tcp, _TCP_STATE)
        if number not in STATES:
            return None
        state, settings = STATES[number], [_UNACKNOWLEDGED, _TIMEOUTS[number]]
    else:
        state, setting = _udp_state(status)
        settings = [setting]
    started = dict(attributes(fields.get(entry.TIMESTAMP, b"")))
    return Flow(
        id=_number(fields, entry.ID),
        client=original.source,
        frontend=Frontend(original.protocol, original.destination),
        source=reply.destination,
        backend=reply.source,
        state=state,
        started=_number(started, _STARTED) / 1e9 if _STARTED in started else None,
        idle=_idle(_number(fields, entry.TIMEOUT), [timeouts[each] for each in settings if each in timeouts]),
        bytes_up=_bytes(fields, entry.COUNTERS_UP),
        bytes_down=_bytes(fields, entry.COUNTERS_DOWN),
        counted=entry.COUNTERS_UP in fields,
    )


def _udp_state(status: int) -> tuple[str, str]:
    """The state, and the name of its timeout."""
    if status & STATUS_ASSURED:
        return "assured", _UDP_STREAM
    return "replied" if status & STATUS_SEEN_REPLY else "unreplied", _UDP


def _idle(left: int, timeouts: list[int]) -> float:
    """How long ago the last packet started the timeout, of which so many seconds are left.

    A TCP connection with unacknowledged data has a shorter timeout than its state says, so it is the
    shortest that what is left fits into.
    """
    return float(min((timeout - left for timeout in timeouts if timeout >= left), default=0))


def _timeouts() -> dict[str, int]:
    found = {}
    for name in {_UNACKNOWLEDGED, _UDP, _UDP_STREAM, *_TIMEOUTS.values()}:
        path = _SETTINGS / f"nf_conntrack_{name}"
        if path.exists():
            found[name] = int(path.read_text())
    return found


def _bytes(fields: Mapping[int, bytes], direction: int) -> int:
    return _number(dict(attributes(fields.get(direction, b""))), _BYTES)


def _number(fields: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(fields.get(kind, b""), "big")
