"""What several workers know, as one."""

from __future__ import annotations

from userproxy.control.tally import Tally
from userproxy.model.address import Address
from userproxy.model.counts import BackendCount, ServiceCount
from userproxy.model.messages import ServiceCounts, Totals
from userproxy.model.service import PoolName, ServicePortName

WEB = ServicePortName("default", "web")
POD = Address("10.0.1.2", 8080)


def told(state: str, connections: int, latency: float | None) -> ServiceCounts:
    backend = BackendCount(
        address=POD, connections=connections, latency=latency, state=state, reason=f"is {state}", seconds=9.0
    )
    count = ServiceCount(pool=PoolName.of(WEB), connections=connections, backends=(backend,))
    return ServiceCounts(services=(count,))


def totals(live: int, waiting: int = 0) -> Totals:
    return Totals(connections=live, waiting=waiting)


def test_counts_add_up_and_the_worse_judgement_is_shown() -> None:
    tally = Tally(
        [told("up", 2, 0.001), told("ejected", 1, None), totals(3, waiting=1), totals(4, waiting=2)]
    )
    backend = tally.backend(WEB, POD)
    assert (backend.connections, backend.latency, backend.state) == (3, 0.001, "ejected")
    assert backend.reason == "is ejected"
    assert (tally.live, tally.waiting) == (7, 3)


def test_of_a_backend_that_nobody_has_used_nothing_is_known() -> None:
    assert Tally(()).backend(WEB, POD) == BackendCount(address=POD, connections=0, latency=None)


def test_what_the_kernel_carries_is_counted_by_who_reads_conntrack_and_not_twice() -> None:
    tally = Tally(
        [told("up", 2, None), totals(2)], steering=[told("ejected", 5, 0.001), totals(5, waiting=1)]
    )
    backend = tally.backend(WEB, POD)
    assert (backend.connections, backend.latency, backend.state) == (2, 0.001, "ejected")
    assert (tally.live, tally.pools[PoolName.of(WEB)], tally.waiting, tally.workers) == (2, 2, 1, 1)
