"""What is asked of all workers: connections, counts, and that they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from userproxy.model.counters import Counters
from userproxy.model.filter import ConnectionFilter
from userproxy.model.messages import (
    Apply,
    ConnectionListing,
    Count,
    Drain,
    Drained,
    Kill,
    Killed,
    ListConnections,
    NeedPods,
    ServiceCounts,
    Totals,
)
from userproxy.model.service import PoolName
from userproxy.tests.ops.daemon import connection
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import counted, serve, totals
from userproxy.tests.worker.test_pool import minded
from userproxy.worker import draining

if TYPE_CHECKING:
    from userproxy.tests.worker.scripted import Site
    from userproxy.worker.pool import WorkerPool

EVERYTHING = ConnectionFilter()


DEATH = Counters(worker_restarts={"died": 1})


def total(pool: WorkerPool) -> Counters:
    """What an operator sees."""
    return Counters.total(pool.past_counters, *pool.living_counters.values())


async def listed(pool: WorkerPool) -> list[str]:
    return [row.id async for rows in pool.connections(EVERYTHING) for row in rows]


@pytest.fixture
async def pool(site: Site) -> WorkerPool:
    """Of two workers, 101 and 102."""
    pool = await site.started_pool(2)
    for worker, pid, opened in zip(site.started, (101, 102), (146, 29), strict=True):
        worker.answers = {
            Count: [ServiceCounts(services=()), totals(opened)],
            ListConnections: [
                ConnectionListing(rows=(connection(1, id=f"{pid}-1"),)),
                ConnectionListing(rows=(connection(2, id=f"{pid}-2"),)),
            ],
            Kill: [Killed(count=1)],
            Drain: [Drained(cut=2)],
        }
    return pool


async def test_connections_are_listed_with_ids_that_tell_whose_they_are(pool: WorkerPool) -> None:
    assert await listed(pool) == ["101-1", "101-2", "102-1", "102-2"]


async def test_that_clients_wait_is_told_by_any_worker_unasked(site: Site, pool: WorkerPool) -> None:
    needed: list[PoolName] = []
    pool.on_need = needed.append
    name = PoolName("default", "web")
    for worker in site.started:
        worker.say(NeedPods(pool=name))
    await until(lambda: needed == [name, name])


async def test_connections_of_a_worker_that_is_gone_or_fails_are_missing_from_the_listing(
    site: Site, pool: WorkerPool
) -> None:
    site.started[0].fails = {ListConnections: "MemoryError()"}
    assert await listed(pool) == ["102-1", "102-2"]
    site.started[1].dies_at = (ListConnections,)
    assert await listed(pool) == []


async def test_connections_are_killed_where_they_are_and_others_are_not_asked(
    site: Site, pool: WorkerPool
) -> None:
    assert await pool.kill(["102-7", "102-9", "103-1", "ct-4", "7"], EVERYTHING) == 1
    assert [[set(order.numbers) for order in worker.told(Kill)] for worker in site.started] == [  # type: ignore[attr-defined]
        [],
        [{7, 9}],
    ]
    assert await pool.kill(None, EVERYTHING) == 2


async def test_a_worker_that_is_gone_has_no_connections_to_kill(site: Site, pool: WorkerPool) -> None:
    site.started[0].dies_at = (Kill,)
    assert await pool.kill(None, EVERYTHING) == 1


async def test_counts_of_all_workers_come_together(pool: WorkerPool) -> None:
    parts = await pool.count()
    assert [part.connections for part in parts if isinstance(part, Totals)] == [146, 29]
    assert pool.living_counters == {101: counted(146), 102: counted(29)}


async def test_counts_of_a_worker_that_does_not_answer_are_those_of_the_last_time(
    site: Site, pool: WorkerPool
) -> None:
    await pool.count()
    site.started[0].silent = (Count,)
    site.started[1].answers[Count] = [totals(30)]
    pool._handles[0].patience = 0.0
    assert [part.connections for part in await pool.count() if isinstance(part, Totals)] == [30]
    assert total(pool) == counted(176)


async def test_counters_do_not_run_backwards_when_workers_die_and_are_replaced(
    site: Site, pool: WorkerPool
) -> None:
    await pool.count()
    before = total(pool)
    site.started[0].die()
    await until(lambda: list(pool.living_counters) == [102])
    assert pool.past_counters == Counters.total(counted(146), DEATH)
    assert total(pool) == Counters.total(before, DEATH)
    async with minded(pool):
        await until(lambda: len(pool.living_counters) == 2)
    site.started[2].answers = {Count: [totals(4)]}
    await pool.count()
    assert total(pool) == Counters.total(counted(179), DEATH)


async def test_counters_do_not_run_backwards_over_a_new_control_side(site: Site, pool: WorkerPool) -> None:
    await pool.count()
    known, past = pool.living_counters, pool.past_counters
    pool.leave()
    survivor, victim = site.started
    await until(lambda: survivor.is_left)
    victim.die()
    site.earlier, site.started = [survivor], []
    heir = site.pool(2)
    await heir.start(known)
    assert heir.past_counters == counted(29)
    assert Counters.total(past, total(heir)) == counted(175)


async def test_what_a_worker_says_last_counts(site: Site, pool: WorkerPool) -> None:
    await pool.count()
    site.started[1].say(totals(35))
    site.started[1].die()
    await until(lambda: 102 not in pool.living_counters)
    assert pool.past_counters == Counters.total(counted(35), DEATH)


async def test_a_drain_ends_every_worker_and_tells_how_many_connections_were_cut(
    site: Site, pool: WorkerPool
) -> None:
    await pool.serve([serve()])
    (sock,) = pool._listeners.sockets.values()
    assert await pool.drain(30) == 4
    assert [order.seconds for worker in site.started for order in worker.told(Drain)] == [30, 30]  # type: ignore[attr-defined]
    assert sock.fileno() < 0
    await until(lambda: all(worker.is_left for worker in site.started))


async def test_a_worker_that_does_not_answer_holds_up_no_drain(
    site: Site, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "HURRY_SECONDS", 0.0)
    site.started[0].silent = (Drain,)
    site.started[1].dies_at = (Drain,)
    assert await pool.drain(0) == 0


async def test_workers_that_end_with_a_drain_are_not_replaced(site: Site, pool: WorkerPool) -> None:
    async with minded(pool):
        await pool.drain(0)
        assert pool._vacant.empty()
    assert len(site.started) == 2


async def test_in_a_hurry_workers_are_told_to_give_connections_no_more_time(
    site: Site, pool: WorkerPool
) -> None:
    for worker in site.started:
        worker.silent = (Drain,)
    under_way = asyncio.ensure_future(pool.drain(3600))
    await until(lambda: all(worker.told(Drain) for worker in site.started))
    pool.end_drain()
    await until(lambda: all(len(worker.told(Drain)) == 2 for worker in site.started))
    assert [order.seconds for order in site.started[0].told(Drain)] == [3600, 0]  # type: ignore[attr-defined]
    for worker in site.started:
        worker.die()
    assert await under_way == 0


async def test_who_is_in_a_hurry_before_it_begins_is_in_a_hurry_then(site: Site, pool: WorkerPool) -> None:
    for worker in site.started:
        worker.answers[Drain] = [Drained(cut=1)]
    pool.end_drain()
    assert await pool.drain(3600) == 2
    assert [order.seconds for order in site.started[0].told(Drain)] == [0]  # type: ignore[attr-defined]


async def test_workers_that_are_left_keep_their_listeners(site: Site, pool: WorkerPool) -> None:
    await pool.serve([serve()])
    pool.leave()
    await until(lambda: all(worker.is_left for worker in site.started))
    assert [type(order) for order in site.started[0].orders[1:]] == [Apply]
    assert pool._vacant.empty()
