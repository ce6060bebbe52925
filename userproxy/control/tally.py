"""The counts of all workers, added up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.condition import REMOVED
from userproxy.model.counts import BackendCount
from userproxy.model.messages import ServiceCounts, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.model.address import Address
    from userproxy.model.counts import ServiceCount, Vitals
    from userproxy.model.messages import Parts
    from userproxy.model.service import PoolName, ServicePortName


class Tally:
    """What the workers have counted at one moment.

    Args:
        parts: what they have said.
        steering: what the steering process has said: its connections are the kernel's, which the flow table
            counts, and are left out.

    Attributes:
        live: connections, of all Service ports.
        waiting: those among them that wait for endpoints.
        pools: connections by pool.
        paused: why accepting waits, a line for each worker where it does.
        backends: what is known of them, by Service port and address.
        workers: how many have answered.
        vitals: what these have and take.
    """

    def __init__(self, parts: Iterable[Parts], steering: Iterable[Parts] = ()) -> None:
        self.live = 0
        self.waiting = 0
        self.pools: Counter[PoolName] = Counter()
        self.paused: list[str] = []
        self.workers = 0
        self.vitals: list[Vitals] = []
        self.backends: dict[tuple[ServicePortName, Address], BackendCount] = {}
        for part in parts:
            match part:
                case Totals():
                    self._add_totals(part)
                case ServiceCounts():
                    self._add_services(part)
                case _:
                    pass
        for part in steering:
            match part:
                case Totals():
                    self.waiting += part.waiting
                case ServiceCounts():
                    for service in part.services:
                        self._add_backends(service, carried=True)
                case _:
                    pass

    def backend(self, service: ServicePortName, address: Address) -> BackendCount:
        """What is known of one backend; zeros if nothing is."""
        nothing = BackendCount(address=address, connections=0, latency=None)
        return self.backends.get((service, address), nothing)

    def _add_totals(self, part: Totals) -> None:
        self.live += part.connections
        self.waiting += part.waiting
        self.workers += 1
        if part.vitals is not None:
            self.vitals.append(part.vitals)
        if part.paused:
            self.paused.append(part.paused)

    def _add_services(self, part: ServiceCounts) -> None:
        for service in part.services:
            self.pools[service.pool] += service.connections
            self._add_backends(service)

    def _add_backends(self, service: ServiceCount, *, carried: bool = False) -> None:
        for each in service.backends:
            count = msgspec.structs.replace(each, connections=0) if carried else each
            key = service.pool.service_port, count.address
            known = self.backends.get(key)
            self.backends[key] = _together(known, count) if known else count


_WORST_LAST = (REMOVED, "up", "ejected", "down")


def _together(one: BackendCount, other: BackendCount) -> BackendCount:
    """What two workers know of a backend; of their judgements, the worse one."""
    worse = max(one, other, key=lambda count: _WORST_LAST.index(count.state))
    return msgspec.structs.replace(
        worse,
        connections=one.connections + other.connections,
        latency=one.latency if other.latency is None else other.latency,
    )
