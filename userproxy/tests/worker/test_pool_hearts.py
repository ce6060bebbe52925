"""Workers beat once they accept the clients of all that is captured, and others speak for the dead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.model.messages import Apply, Beat, Count, Outage, Retire, Totals
from userproxy.model.service import PoolName, ServicePortName
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import POD1, POD2, serve
from userproxy.worker import heart, hearts
from userproxy.worker import pool as pool_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.tests.worker.scripted import ScriptedWorker, Site
    from userproxy.worker.pool import WorkerPool

WEB = PoolName.of(ServicePortName("default", "web"))


@pytest.fixture(autouse=True)
def silenced(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Who is told that a worker is silent. Its sockets are without a mark, which takes a privilege."""
    with socket.socket(type=socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.setblocking(False)  # noqa: FBT003 - takes no keyword
        monkeypatch.setattr(hearts, "LEAVE_PORT", ear.getsockname()[1])
        monkeypatch.setattr(hearts, "open_socket", lambda _index: socket.socket(type=socket.SOCK_DGRAM))
        monkeypatch.setattr(pool_module, "_RESPAWN_SECONDS", 0.0)
        yield ear


def farewells(ear: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            ear.recv(1)
            count += 1
    return count


def beats(worker: ScriptedWorker) -> int:
    return len(worker.told(Beat))


@contextlib.asynccontextmanager
async def minded(pool: WorkerPool):  # type: ignore[no-untyped-def]  # noqa: ANN201 - of no value
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.mind(lambda: None))
        try:
            yield
        finally:
            task.cancel()


async def test_nobody_beats_before_it_is_time_and_everybody_once(site: Site) -> None:
    pool = await site.started_pool(2)
    await pool.serve([serve()])
    assert pool.hearts.beating == frozenset()
    assert [beats(worker) for worker in site.started] == [0, 0]
    pool.hearts.begin()
    pool.hearts.begin()
    await until(lambda: all(map(beats, site.started)))
    assert [beats(worker) for worker in site.started] == [1, 1]
    assert pool.hearts.beating == {0, 1}


async def test_a_dead_worker_is_spoken_for_and_its_successor_beats_when_it_listens(
    site: Site, silenced: socket.socket
) -> None:
    pool = await site.started_pool(2)
    await pool.serve([serve()])
    pool.hearts.begin()
    async with minded(pool):
        site.started[0].die()
        await until(lambda: len(site.started) == 3 and beats(site.started[2]))
    orders = [type(order) for order in site.started[2].orders]
    assert orders.index(Apply) < orders.index(Beat)
    assert farewells(silenced) == 1


async def test_a_worker_that_is_asked_to_end_accepts_nobody_from_then_on(
    site: Site, silenced: socket.socket
) -> None:
    pool = await site.started_pool()
    pool.hearts.begin()
    pool._dismiss(next(iter(pool._handles.values())))
    await until(lambda: site.started[0].told(Retire))
    assert farewells(silenced) == 1


async def test_who_takes_over_does_not_speak_for_those_before_it(site: Site, silenced: socket.socket) -> None:
    earlier = site.left_behind(serve())
    pool = await site.started_pool()
    assert earlier.told(Retire)
    pool.hearts.begin()
    await until(lambda: beats(site.started[0]))
    earlier.die()
    await until(lambda: not pool._retiring)
    assert farewells(silenced) == 0, "they have stopped, and the heart of the new one has the same mark"


@pytest.mark.parametrize(
    ("first", "second", "begun"), [(True, True, True), (True, False, False), (False, False, False)]
)
async def test_workers_beat_in_the_place_of_those_that_did_before_these_stop(
    site: Site, first: bool, second: bool, begun: bool
) -> None:
    for beats_before in (first, second):
        site.left_behind(serve()).beats = beats_before
    site.left_behind()  # it has stopped long ago, and some connection lasts
    pool = await site.started_pool()
    await until(lambda: all(worker.told(Retire) for worker in site.earlier))
    assert bool(pool.hearts.beating) is begun
    assert beats(site.started[0]) == begun


async def test_without_the_privilege_there_is_one_line_and_everybody_works(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_index: int) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(hearts, "open_socket", refuse)
    pool = await site.started_pool(2)
    pool.hearts.begin()
    await pool.serve([serve()])
    assert [beats(worker) for worker in site.started] == [0, 0]
    assert WEB in site.started[0].serves


async def test_a_worker_says_why_clients_had_better_go_elsewhere(site: Site) -> None:
    def script(worker: ScriptedWorker) -> None:
        worker.answers[Count] = [Totals(connections=1, full="no files")]

    site.script = script
    pool = await site.started_pool()
    assert await pool.hearts.fullness_of(0, 5.0) == "no files"
    site.started[0].silent = (Count,)
    assert await pool.hearts.fullness_of(0, 0.01) is None
    assert not pool._handles[0].is_silent, "it is not given up for that"
    assert await pool.hearts.fullness_of(7, 5.0) == "", "there is none"


async def test_what_any_worker_has_found_down_is_down_until_it_says_otherwise_or_is_gone(site: Site) -> None:
    pool = await site.started_pool(2)
    told: list[None] = []
    pool.outages.on_change = lambda: told.append(None)
    one, other = site.started
    one.say(Outage(pool=WEB, backends=(POD1,)))
    other.say(Outage(pool=WEB, backends=(POD2,)))
    await until(lambda: len(told) == 2)
    assert pool.outages.by_pool() == {WEB: {POD1, POD2}}
    one.say(Outage(pool=WEB, backends=()))
    await until(lambda: len(told) == 3)
    assert pool.outages.by_pool() == {WEB: {POD2}}
    other.die()
    await until(lambda: len(told) == 4)
    assert pool.outages.by_pool() == {}


@pytest.mark.skipif("os.geteuid() != 0", reason="a mark takes CAP_NET_ADMIN")
def test_a_socket_has_the_mark_of_its_worker() -> None:
    with heart.open_socket(5) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x75700005
