"""Connections that outlive what they belong to are shown until they end: then a drain is over.

A pod that was drained, one that its Service lost, a Service that was deleted: their connections live on, on
this worker or on one of an earlier daemon, and an operator waits for the count to be 0.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from userproxy.model.counts import BackendCount
from userproxy.model.service import Path
from userproxy.model.snapshot import EMPTY
from userproxy.tests.control.rig.node import (
    CART,
    POD1,
    POD2,
    WEB,
    count,
    counts,
    flow,
    service,
    snapshot,
    totals,
)

if TYPE_CHECKING:
    from userproxy.tests.control.rig.node import ControlSide

pytestmark = pytest.mark.usefixtures("quiet")

GONE = "no endpoint of the Service; live connections go on"
DELETED = "the Service is deleted; its live connections go on"


async def test_a_drain_is_watched_to_its_end(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.reconciler.drained.add(POD1)
    await side.again()
    # The workers have been told of the other pod alone, so to them this one is gone.
    for left in (3, 1, 0):
        side.workers.parts = [counts(WEB, count(POD1, left, "removed", 2.0)) if left else counts(WEB)]
        assert await side.backends() == [(str(POD1), "draining", left), (str(POD2), "up", 0)]
        assert (await side.services())["default/web"].connections == left


async def test_a_removed_pod_is_shown_while_connections_on_it_live(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    await side.apply(snapshot(service(), pods=[POD2]))
    left = BackendCount(
        address=POD1, connections=3, latency=0.001, state="removed", seconds=5.0, node="host2", zone="west"
    )
    side.workers.parts = [counts(WEB, left), totals(3)]
    rows = await side.rows()
    assert [(row.backend, row.state, row.connections) for row in rows] == [
        (str(POD2), "up", 0),
        (str(POD1), "removed", 3),
    ]
    since = datetime.fromtimestamp(side.clock.now - 5, UTC).isoformat(timespec="seconds")
    assert (rows[1].reason, rows[1].node, rows[1].zone, rows[1].since) == (GONE, "host2", "west", since)
    side.workers.parts = [counts(WEB), totals(0)]
    assert await side.backends() == [(str(POD2), "up", 0)]


async def test_a_removed_pod_does_not_count_as_a_backend_of_its_service(side: ControlSide) -> None:
    await side.apply(snapshot(service(), pods=[POD2]))
    side.workers.parts = [counts(WEB, count(POD1, 3, "removed"))]
    row = (await side.services())["default/web"]
    assert (row.backends_up, row.backends, row.connections) == (1, 1, 3)


async def test_a_removed_pod_that_the_kernel_sent_connections_to_is_shown_too(side: ControlSide) -> None:
    to_pod = service(path=Path.REDIRECT_TO_POD)
    await side.apply(snapshot(to_pod))
    await side.apply(snapshot(to_pod, pods=[POD2]))
    side.flows = [flow("10.3.0.1:80", POD1, 1), flow("10.3.0.1:80", POD1, 2)]
    assert await side.backends() == [(str(POD2), "up", 0), (str(POD1), "removed", 2)]
    side.clock.now += 2
    side.flows = []
    assert await side.backends() == [(str(POD2), "up", 0)]


async def test_a_removed_pod_with_connections_on_both_paths_is_one_row(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    await side.apply(snapshot(service(path=Path.REDIRECT_TO_POD)))
    await side.apply(snapshot(service(path=Path.REDIRECT_TO_POD), pods=[POD2]))
    side.workers.parts = [counts(WEB, count(POD1, 1, "removed")), totals(1)]
    side.flows = [flow("10.3.0.1:80", POD1, 1)]
    assert await side.backends() == [(str(POD2), "up", 0), (str(POD1), "removed", 2)]


async def test_a_deleted_service_is_shown_while_its_connections_live(side: ControlSide) -> None:
    await side.apply(snapshot(service(CART, "10.3.0.2:80"), service()))
    await side.apply(snapshot(service(CART, "10.3.0.2:80")))
    side.workers.parts = [counts(WEB, count(POD1, 2, "removed", 1.0)), totals(2)]
    rows = await side.services()
    assert list(rows) == ["default/web", "shop/cart:http"]
    row = rows["default/web"]
    assert (row.listener, row.frontends, row.backends, row.connections) == (None, (), 0, 2)
    assert row.problems == (DELETED,)
    (backend,) = await side.rows(WEB)
    assert (backend.state, backend.connections, backend.reason) == ("removed", 2, DELETED)
    side.workers.parts = [totals(0)]
    assert list(await side.services()) == ["shop/cart:http"]
    assert await side.backends() == []


async def test_with_every_service_deleted_their_connections_are_still_shown(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    await side.apply(EMPTY)
    side.workers.parts = [counts(WEB, count(POD1, 1, "removed"))]
    assert list(await side.services()) == ["default/web"]


async def test_a_pod_that_comes_back_is_a_backend_again_with_its_connections(side: ControlSide) -> None:
    await side.apply(snapshot(service(), pods=[POD2]))
    await side.apply(snapshot(service()))
    # A worker that has yet to hear of it, or that retires and was told late.
    side.workers.parts = [counts(WEB, count(POD1, 3, "removed", 60.0)), counts(WEB, count(POD1, 1))]
    assert await side.backends() == [(str(POD1), "up", 4), (str(POD2), "up", 0)]


async def test_what_workers_that_retire_have_counts_too(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.reconciler.drained.add(POD1)
    await side.again()
    side.workers.parts = [
        counts(WEB, count(POD1, 2, "removed", 9.0)),
        counts(WEB, count(POD1, 1, "removed", 4.0)),
    ]
    assert (await side.backends())[0] == (str(POD1), "draining", 3)
