"""What is written down of connections that the kernel carried, once they are over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from userproxy.model.carried import End, How
from userproxy.model.endings import ENDINGS, Reason
from userproxy.model.flow_key import UDP, sockaddr_of
from userproxy.model.metric import BETWEEN
from userproxy.model.records import BY_KERNEL
from userproxy.model.service import Path, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.dataplane.steered.port import Carried, Port
    from userproxy.model.address import Address
    from userproxy.model.carried import Counts
    from userproxy.model.counters import Counters
    from userproxy.model.records import CarriedFields
    from userproxy.model.service import ServicePortName

_UNCOUNTED: tuple[None, None, None, None] = (None, None, None, None)
_TCP, _UDP, _STEERED = Protocol.TCP, Protocol.UDP, Path.STEERED  # a member takes a while to look up
_ENDS: dict[How | None, Reason] = {How.CLIENT_FIRST: Reason.CLIENT_FIN, How.BACKEND_FIRST: Reason.BACKEND_FIN}


def reason_of(carried: Carried, end: End | None = None) -> Reason:
    """Why a connection is over.

    Args:
        carried: the connection.
        end: what conntrack tells of that; None: nothing.
    """
    if carried.reason is not None:
        return carried.reason
    how = None if end is None else end.how
    if carried.flow[0] == UDP:
        return Reason.IDLE if how is How.EXPIRED else Reason.FORGOTTEN
    reason = _ENDS.get(how)
    if reason is not None:
        return reason
    if not carried.answered:
        return Reason.DIAL_FAILED
    return Reason.RESET if how is How.RESET else Reason.FORGOTTEN


class Ledger:
    """Counts connections, and has those that are over remembered and logged. Lives as long as the decision.

    Args:
        counters: of this process.
        clock: monotonic seconds, as the connections have them.
        wall: seconds since the epoch.

    Attributes:
        keep: takes each that is over; None: nobody does.
        name: of this process, for those that the kernel never had.
        by_service: whether single Services are counted too.
        is_open: whether what is over is written down, and counted, here.
    """

    def __init__(
        self, counters: Counters, clock: Callable[[], float], wall: Callable[[], float] = time.time
    ) -> None:
        self.keep: Callable[[CarriedFields, Reason], object] | None = None
        self.name = 0
        self.by_service = False
        self.is_open = True
        self._counters = counters
        self._clock = clock
        self._unnumbered = 0
        self._wall = wall

    def began(self, port: Port) -> None:
        """The first packet of a connection has come."""
        self._counters.connections_opened += 1
        if self.by_service:
            self._counters.service_connections_opened[port.label] += 1

    def over(self, carried: Carried, reason: Reason, end: End | None = None) -> None:
        """A connection is over.

        Args:
            carried: the connection, on the backend that it was on.
            reason: why.
            end: what conntrack tells of that; None: nothing.
        """
        if not self.is_open:
            return
        counters = self._counters
        counters.connections_ended[reason.value] += 1
        if end is not None and end.counts is not None:
            self._add(carried.port, end.counts)
        if self.by_service and not ENDINGS[reason].orderly:
            counters.service_failed_connections[carried.port.label] += 1
        if self.keep is not None:
            self.keep(self._fields(carried, reason, end), reason)

    def forget(self, service: ServicePortName) -> None:
        """A Service port is no more."""
        counters, label = self._counters, str(service)
        counters.service_connections_opened.pop(label, None)
        counters.service_failed_connections.pop(label, None)
        for direction in ("up", "down"):
            counters.service_relayed_bytes.pop(f"{label}{BETWEEN}{direction}", None)

    def _add(self, port: Port, counts: Counts) -> None:
        counters = self._counters
        counters.relayed_bytes["up"] += counts.bytes_up
        counters.relayed_bytes["down"] += counts.bytes_down
        if self.by_service:
            counters.service_relayed_bytes[f"{port.label}{BETWEEN}up"] += counts.bytes_up
            counters.service_relayed_bytes[f"{port.label}{BETWEEN}down"] += counts.bytes_down

    def _fields(self, carried: Carried, reason: Reason, end: End | None) -> CarriedFields:
        flow, live, took = carried.flow, carried.live, carried.took
        seconds = self._clock() - carried.began
        client = carried.client, int.from_bytes(flow[-4:-2])
        name, number = self.name, 0
        source: Address | None = None
        counts: Counts | tuple[None, None, None, None] = _UNCOUNTED
        if end is not None:
            name, number, source, counts = BY_KERNEL, end.number, end.source, end.counts or _UNCOUNTED
        else:
            self._unnumbered += 1
            number = self._unnumbered
        connected = None if took is None else carried.sent - carried.began + took
        return (
            name,
            number,
            carried.port.service.pool.service,
            _UDP if flow[0] == UDP else _TCP,
            None,
            self._wall() - seconds,
            seconds,
            client,
            sockaddr_of(flow),
            None if live is None else source or client,
            None if live is None else live.address,
            counts[1],
            counts[3],
            reason,
            "closed",
            (carried.attempts, connected, took),
            _STEERED,
            counts[0],
            counts[2],
            carried.sequence is None,
        )
