"""What workers remember is one list, and outlives each of them that ends in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.filter import RecordFilter
from userproxy.model.messages import Drain, Drained, KeepRecords, ListRecords, RecordListing, Records
from userproxy.tests.records import record
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import serve

if TYPE_CHECKING:
    from userproxy.tests.worker.scripted import ScriptedWorker, Site
    from userproxy.worker.pool import WorkerPool


async def listed(pool: WorkerPool, wanted: RecordFilter) -> list[str]:
    return [row.id async for rows in pool.recollection.records(wanted) for row in rows]


def kept(worker: ScriptedWorker) -> list[bytes]:
    orders = worker.told(KeepRecords)
    return [one for order in orders if isinstance(order, KeepRecords) for one in order.records]


async def test_all_workers_are_asked_and_those_that_fail_are_missing(site: Site) -> None:
    pool = await site.started_pool(3)
    for number, worker in enumerate(site.started):
        worker.answers = {ListRecords: [RecordListing(rows=(record(id=f"{number}-1"),))]}
    site.started[1].fails = {ListRecords: "MemoryError()"}
    wanted = RecordFilter(since=12.0)
    assert sorted(await listed(pool, wanted)) == ["0-1", "2-1"]
    assert [order.wanted for order in site.started[0].told(ListRecords)] == [wanted]  # type: ignore[attr-defined]


async def test_what_one_leaves_to_another_at_that_moment_is_told_once(site: Site) -> None:
    pool = await site.started_pool(2)
    for worker in site.started:
        worker.answers = {ListRecords: [RecordListing(rows=(record(id="101-1"),))]}
    assert await listed(pool, RecordFilter()) == ["101-1"]


async def test_what_a_worker_leaves_goes_on_to_those_that_serve_in_turn(site: Site) -> None:
    earlier = site.left_behind(serve())
    await site.started_pool(2)
    for number in range(4):
        earlier.say(Records(records=(b"%d" % number,)))
    first, second = site.started
    await until(lambda: len(kept(first)) + len(kept(second)) == 4)
    assert (kept(first), kept(second)) == ([b"0", b"2"], [b"1", b"3"])
    assert kept(earlier) == []


async def test_where_nobody_serves_any_more_it_is_kept_for_whoever_comes_then(site: Site) -> None:
    pool = await site.started_pool()
    (worker,) = site.started
    worker.answers = {Drain: [Records(records=(b"1", b"2")), Drained(cut=0)]}
    await pool.drain(0.0)
    assert pool.recollection.unclaimed == [b"1", b"2"]
    assert kept(worker) == []
    later = site.pool()
    later.recollection.unclaimed += pool.recollection.unclaimed
    await later.start()
    heir = site.started[-1]
    await until(lambda: kept(heir) == [b"1", b"2"])
    assert later.recollection.unclaimed == []
