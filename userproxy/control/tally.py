"""The counts of all workers, added up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from userproxy.model.messages import BackendCount, ServiceCounts, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.address import Address
    from userproxy.model.messages import Parts
    from userproxy.model.service import ServicePortName


class Tally:
    """What the workers have counted at one moment.

    Attributes:
        live: connections, of all Service ports.
        services: connections by Service port.
        ended: connections that ended, by reason.
        paused: why accepting waits, a line for each worker where it does.
        failed_dials: ever, by kind.
        retried_dials: those of them that were followed by another attempt; `hedged`: second dials beside a
            first one that took long.
        changes: how often a backend has become `up`, `down` and `ejected`, as each worker sees it.
        checks: active ones, `passed` and `failed`.
        turned_away: clients that had as many connections as one may.
    """

    def __init__(self, parts: Iterable[Parts]) -> None:
        self.live = 0
        self.services: Counter[ServicePortName] = Counter()
        self.ended: Counter[str] = Counter()
        self.paused: list[str] = []
        self.failed_dials: Counter[str] = Counter()
        self.retried_dials: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.turned_away = 0
        self._backends: dict[tuple[ServicePortName, Address], BackendCount] = {}
        for part in parts:
            match part:
                case Totals():
                    self._add_totals(part)
                case ServiceCounts():
                    self._add_services(part)
                case _:
                    pass

    def backend(self, service: ServicePortName, address: Address) -> BackendCount:
        """What is known of one backend; zeros if nothing is."""
        nothing = BackendCount(address=address, connections=0, latency=None)
        return self._backends.get((service, address), nothing)

    def _add_totals(self, part: Totals) -> None:
        self.live += part.connections
        self.ended.update(part.ended)
        self.failed_dials.update(part.failed_dials)
        self.retried_dials.update(part.retried_dials)
        self.changes.update(part.changes)
        self.checks.update(part.checks)
        self.turned_away += part.turned_away
        if part.paused:
            self.paused.append(part.paused)

    def _add_services(self, part: ServiceCounts) -> None:
        for service in part.services:
            self.services[service.service] += service.connections
            for count in service.backends:
                key = service.service, count.address
                known = self._backends.get(key)
                self._backends[key] = _together(known, count) if known else count


_WORST_LAST = ("up", "ejected", "down")


def _together(one: BackendCount, other: BackendCount) -> BackendCount:
    """What two workers know of a backend; of their judgements, the worse one."""
    worse = max(one, other, key=lambda count: _WORST_LAST.index(count.state))
    return BackendCount(
        address=one.address,
        connections=one.connections + other.connections,
        latency=one.latency if other.latency is None else other.latency,
        state=worse.state,
        reason=worse.reason,
        seconds=worse.seconds,
    )
