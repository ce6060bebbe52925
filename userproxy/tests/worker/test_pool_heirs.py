"""A pool takes over from the workers of an earlier control side, and tells those what they need to know."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.model.filter import ConnectionFilter
from userproxy.model.messages import Apply, Begin, Count, Kill, Retire
from userproxy.net.sockets import RESET_ON_CLOSE, deliver_on_close
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import POD2, counted, serve, totals
from userproxy.worker import pool as pool_module
from userproxy.worker.handle import WorkerGoneError

if TYPE_CHECKING:
    from userproxy.tests.worker.scripted import ScriptedWorker, Site


async def test_what_an_earlier_worker_holds_is_served_on_by_new_ones_before_it_is_told_to_go(
    site: Site,
) -> None:
    earlier = site.left_behind(serve("one"), serve("two"))
    held = {one.name: os.fstat(fd).st_ino for one, fd in earlier._holds.items()}

    def script(worker: ScriptedWorker) -> None:
        assert not earlier.told(Retire)
        worker.answers = {}

    site.script = script
    pool = await site.started_pool(2)
    assert list(pool.serves.values()) == [serve("one"), serve("two")]
    assert [worker.files for worker in site.started] == [held, held]
    assert [type(order) for order in earlier.orders] == [Retire]


async def test_clients_of_a_listener_that_an_older_version_has_opened_are_never_told_a_false_end(
    site: Site,
) -> None:
    earlier = site.left_behind(serve())
    (fd,) = earlier._holds.values()
    with socket.socket(fileno=os.dup(fd)) as older:
        deliver_on_close(older)
    pool = await site.started_pool()
    (sock,) = pool._listeners.sockets.values()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == RESET_ON_CLOSE


async def test_two_earlier_workers_with_the_same_listeners_are_one_and_nothing_is_kept_twice(
    site: Site,
) -> None:
    first = site.left_behind(serve())
    second = site.left_behind()
    second._holds = dict(first._holds)
    pool = await site.started_pool()
    assert len(pool._listeners.sockets) == 1
    assert [len(worker.told(Retire)) for worker in (first, second)] == [1, 1]


async def test_a_crowd_of_listeners_comes_over_in_several_messages(site: Site) -> None:
    earlier = site.left_behind(*(serve(f"web{number}") for number in range(250)))
    pool = await site.started_pool()
    assert len(pool.serves) == 250
    assert len(set(site.started[0].files.values())) == 250
    del earlier


async def test_an_earlier_worker_that_ends_meanwhile_is_of_no_account(site: Site) -> None:
    earlier = site.left_behind(serve())
    earlier.is_mute = True
    pool = site.pool()
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    earlier.die()
    await starting
    assert pool.serves == {}


async def test_an_earlier_worker_that_does_not_answer_is_told_to_go_and_delays_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_ADOPT_SECONDS", 0.0)
    earlier = site.left_behind(serve())
    earlier.is_mute, earlier.silent = True, (Retire, Apply)
    pool = await site.started_pool()
    assert pool.serves == {}
    await until(lambda: earlier.told(Retire))
    assert await pool.serve([serve()]) == {}
    assert not earlier.told(Apply), "nothing piles up for it"


async def test_where_no_new_worker_starts_the_earlier_ones_go_on(site: Site) -> None:
    earlier = site.left_behind(serve())
    site.script = lambda worker: setattr(worker, "dies_at", (Begin,))
    pool = site.pool()
    with pytest.raises(WorkerGoneError):
        await pool.start()
    pool.leave()
    await until(lambda: earlier.is_left)
    assert earlier.orders == []


async def test_workers_that_retire_hear_of_every_change_and_nobody_waits_for_them(site: Site) -> None:
    earlier = site.left_behind(serve("one"), serve("two"))
    pool = await site.started_pool()
    earlier.silent = (Apply,)
    await pool.serve([serve("one", POD2)])
    await pool.close([serve("two").name])
    await until(lambda: len(earlier.told(Apply)) == 2)
    assert earlier.serves == {serve("one").name: serve("one", POD2)}
    assert earlier.fds == [0, 0]
    assert pool.behind == frozenset()


async def test_a_worker_that_was_dismissed_hears_of_changes_too(site: Site) -> None:
    pool = await site.started_pool(2)
    await pool.serve([serve()])
    pool._dismiss(pool._handles[0])
    await pool.serve([serve("web", POD2)])
    await until(lambda: site.started[0].serves == pool.serves)


async def test_the_counts_of_earlier_workers_go_on_from_where_they_were(site: Site) -> None:
    earlier = site.left_behind(serve())
    known = {earlier.pid: counted(100, killed=5), 7: counted(20, aged=1), 8: counted(3)}
    pool = site.pool()
    await pool.start(known)
    assert pool.past_counters == counted(23, aged=1), "those that ended meanwhile"
    assert pool.living_counters[earlier.pid] == counted(100, killed=5)
    earlier.answers = {Count: [totals(101, killed=6)]}
    await pool.count()
    assert pool.living_counters[earlier.pid] == counted(101, killed=6)


async def test_an_earlier_worker_s_last_words_count(site: Site) -> None:
    earlier = site.left_behind(serve())
    pool = site.pool()
    await pool.start({earlier.pid: counted(100)})
    earlier.say(totals(146, killed=40))
    earlier.die()
    await until(lambda: earlier.pid not in pool.living_counters)
    assert pool.past_counters == counted(146, killed=40)


async def test_workers_of_another_container_may_have_the_pids_of_ours_and_no_two_have_one_name(
    site: Site,
) -> None:
    pool = site.pool(2)
    site.left_behind(serve()).answers = {Count: [totals(100)]}
    site.script = lambda worker: worker.answers.update({Count: [totals(3)]})
    site.next_pid = site.earlier[0].pid
    await pool.start()
    await pool.count()
    pid = site.earlier[0].pid
    assert pool.living_counters == {pid: counted(100), pid + 1: counted(3), pid + 2: counted(3)}
    (begun,) = site.started[0].told(Begin)
    assert isinstance(begun, Begin)
    assert begun.name in (pid + 1, pid + 2)
    assert await pool.kill([f"{pid + 1}-7"], ConnectionFilter()) == 0
    assert [len(worker.told(Kill)) for worker in site.earlier] == [0]
    assert sorted(len(worker.told(Kill)) for worker in site.started) == [0, 1]
