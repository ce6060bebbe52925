"""What is remembered of connections that are over outlives the worker that carried them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from integration.worker.site import BEGIN, EVERYTHING, Client, Site, is_running, pids, until
from userproxy.model.filter import RecordFilter

if TYPE_CHECKING:
    from userproxy.model.messages import Begin
    from userproxy.model.records import RecordRow
    from userproxy.worker.pool import WorkerPool

REMEMBERING: Begin = msgspec.structs.replace(BEGIN, recorded=2000)
ENDED = RecordFilter(live=False)


async def ended(pool: WorkerPool, wanted: RecordFilter = ENDED) -> list[RecordRow]:
    return [row async for rows in pool.recollection.records(wanted) for row in rows]


async def killed(pool: WorkerPool, client: Client) -> None:
    assert await pool.kill(None, EVERYTHING) == 1
    assert await client.is_reset()


async def test_over_a_reload_they_stay_in_the_worker_that_retires_and_then_in_the_one_that_serves(
    site: Site,
) -> None:
    first, wanted = await site.serving(1, REMEMBERING)
    await killed(first, await Client.connect(wanted.listener))
    (before,) = await ended(first)
    assert (before.reason, before.ended_by, before.service) == ("killed", "operator", "default/web")
    lasting = await Client.connect(wanted.listener)
    (earlier,) = pids(first)
    first.leave()

    second = await site.pool(1, REMEMBERING)
    assert await ended(second) == [before], "told by the worker that retires"
    (live,) = await ended(second, RecordFilter(ended=False))
    await killed(second, lasting)
    await until(lambda: not is_running(earlier))
    found = {row.id: row for row in await ended(second)}
    assert found.keys() == {before.id, live.id}, "told by the worker that took its place"
    assert found[before.id] == before
    second.leave()

    third = await site.pool(1, REMEMBERING)
    await until(lambda: len(third._everybody()) == 1)
    assert {row.id for row in await ended(third)} == found.keys()


async def test_a_crowd_of_them_is_handed_over_whole(site: Site) -> None:
    first, wanted = await site.serving(1, REMEMBERING)
    for _ in range(1500):
        await (await Client.connect(wanted.listener)).close()
    assert len(await ended(first)) == 1500
    first.leave()
    second = await site.pool(1, REMEMBERING)
    await until(lambda: len(second._everybody()) == 1)
    assert len(await ended(second)) == 1500
