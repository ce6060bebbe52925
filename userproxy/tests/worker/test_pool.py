"""The workers together: hired, told what to serve, and replaced, while nobody outside notices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.model import messages
from userproxy.model.address import Address
from userproxy.model.messages import Apply, Begin, Retire
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import POD1, POD2, serve
from userproxy.worker import pool as pool_module
from userproxy.worker.handle import WorkerGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from userproxy.tests.worker.scripted import ScriptedWorker, Site
    from userproxy.worker.pool import WorkerPool


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are replaced one after another without a pause."""
    monkeypatch.setattr(pool_module, "_RESPAWN_SECONDS", 0.0)


@contextlib.asynccontextmanager
async def minded(pool: WorkerPool) -> AsyncIterator[list[None]]:
    """The pool replaces workers meanwhile; yields a list that grows whenever it has fallen behind."""
    fell: list[None] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.mind(lambda: fell.append(None)))
        try:
            yield fell
        finally:
            task.cancel()


def names(pool: WorkerPool) -> list[str]:
    """What the pool serves."""
    return [name.service for name in pool.serves]


def connect(pool: WorkerPool, name: str = "web") -> None:
    """A client, that is not refused."""
    (sock,) = [sock for known, sock in pool._listeners.sockets.items() if known.service == name]
    socket.create_connection(sock.getsockname()).close()


async def test_each_worker_is_told_how_to_work_and_which_of_how_many_it_is(site: Site) -> None:
    pool = await site.started_pool(3)
    told = [order for worker in site.started for order in worker.told(Begin)]
    assert [(order.index, order.workers, order.max_pipes) for order in told] == [  # type: ignore[attr-defined]
        (0, 3, 100),
        (1, 3, 100),
        (2, 3, 100),
    ]
    assert pool.serves == {}


async def test_a_listening_socket_goes_to_every_worker_and_is_the_same_one(site: Site) -> None:
    pool = await site.started_pool(2)
    assert await pool.serve([serve()]) == {}
    files = [worker.files for worker in site.started]
    assert (
        files[0]
        == files[1]
        == {serve().name: os.fstat(pool._listeners.sockets[serve().name].fileno()).st_ino}
    )
    connect(pool)


async def test_new_backends_go_without_a_socket(site: Site) -> None:
    pool = await site.started_pool()
    await pool.serve([serve("web", POD1)])
    assert await pool.serve([serve("web", POD2)]) == {}
    (worker,) = site.started
    assert worker.fds == [1, 0]
    assert worker.serves == pool.serves == {serve().name: serve("web", POD2)}


async def test_the_former_listener_is_closed_once_the_workers_have_the_new_one(site: Site) -> None:
    pool = await site.started_pool()
    first = serve(listener=Address("127.0.0.2", 0))
    await pool.serve([first])
    former = pool._listeners.sockets[first.name]
    assert await pool.serve([serve()]) == {}
    assert former.fileno() < 0
    assert site.started[0].fds == [1, 1]
    connect(pool)


async def test_a_port_that_somebody_else_has_is_a_failure_and_the_others_are_served(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        taken = serve("taken", listener=Address(*owner.getsockname()))
        pool = await site.started_pool()
        failures = await pool.serve([taken, serve("fine")])
    assert {name.service: error.errno for name, error in failures.items()} == {"taken": errno.EADDRINUSE}
    assert names(pool) == ["fine"]
    assert [one.name.service for one in site.started[0].serves.values()] == ["fine"]


async def test_one_that_moves_to_a_port_that_somebody_has_stays_where_it_is(site: Site) -> None:
    pool = await site.started_pool()
    await pool.serve([serve()])
    with socket.create_server(("127.0.0.1", 0)) as owner:
        moved = serve(listener=Address(*owner.getsockname()))
        assert list(await pool.serve([moved])) == [moved.name]
    assert pool.serves == {serve().name: serve()}
    connect(pool)


async def test_closing_ends_listening_here_and_in_every_worker(site: Site) -> None:
    pool = await site.started_pool(2)
    await pool.serve([serve("one"), serve("two")])
    await pool.close([serve("one").name, serve("unknown").name])
    assert names(pool) == ["two"]
    assert [list(worker.files) for worker in site.started] == [[serve("two").name]] * 2


async def test_many_services_are_told_in_messages_that_hold_their_sockets(site: Site) -> None:
    pool = await site.started_pool()
    many = [serve(f"web{number}") for number in range(250)]
    assert await pool.serve(many) == {}
    (worker,) = site.started
    assert worker.fds == [100, 100, 50]
    assert len(set(worker.files.values())) == 250
    await pool.close([one.name for one in many])
    assert worker.serves == {}
    assert worker.fds == [100, 100, 50, 0, 0, 0]


async def test_a_port_that_one_worker_cannot_open_is_a_failure_and_opened_by_none(site: Site) -> None:
    pool = await site.started_pool(2)
    site.started[1].fails = {Apply: "files did not arrive"}
    failures = await pool.serve([serve()])
    assert [(error.errno, error.strerror) for error in failures.values()] == [
        (errno.EIO, "files did not arrive")
    ]
    assert (pool.serves, pool.behind, site.started[0].serves) == ({}, frozenset(), {})
    site.started[1].fails.clear()
    assert await pool.serve([serve()]) == {}


async def test_a_worker_that_fails_at_new_backends_is_behind_until_it_has_taken_them_over(site: Site) -> None:
    pool = await site.started_pool(2)
    await pool.serve([serve("web", POD1), serve("other")])
    site.started[1].fails = {Apply: "MemoryError()"}
    for _ in range(2):
        assert await pool.serve([serve("web", POD2)]) == {}
        assert pool.behind == {serve().name}
    assert pool.serves[serve().name] == serve("web", POD2), "the other worker has it"
    site.started[1].fails.clear()
    assert await pool.serve([serve("web", POD2)]) == {}
    assert pool.behind == frozenset()
    assert site.started[1].serves[serve().name] == serve("web", POD2)


async def test_nobody_is_behind_with_a_service_that_is_closed(site: Site) -> None:
    pool = await site.started_pool()
    await pool.serve([serve()])
    site.started[0].fails = {Apply: "MemoryError()"}
    await pool.serve([serve("web", POD2)])
    await pool.close([serve().name])
    assert pool.behind == frozenset()


async def test_a_worker_that_dies_is_replaced_by_one_that_serves_the_same_and_nobody_is_refused(
    site: Site,
) -> None:
    pool = await site.started_pool(2)
    many = [serve(f"web{number}") for number in range(150)]
    await pool.serve(many)
    first, second = site.started
    first.die()
    await until(lambda: len(pool._handles) == 1)
    connect(pool, "web149")
    async with minded(pool):
        await until(lambda: len(site.started) == 3 and site.started[2].serves == second.serves)
    assert site.started[2].files == second.files
    assert [order.index for order in site.started[2].told(Begin)] == [0]  # type: ignore[attr-defined]


async def test_a_worker_that_dies_in_the_middle_of_an_order_fails_nobody_s_service(site: Site) -> None:
    pool = await site.started_pool(2)
    site.started[0].dies_at = (Apply,)
    many = [serve(f"web{number}") for number in range(150)]
    assert await pool.serve(many) == {}
    assert (len(pool.serves), pool.behind) == (150, frozenset())
    async with minded(pool):
        await until(lambda: len(site.started) == 3 and len(site.started[2].serves) == 150)


async def test_a_worker_that_is_silent_is_replaced_and_told_to_go_and_fails_nobody_s_service(
    site: Site,
) -> None:
    pool = await site.started_pool(2)
    await pool.serve([serve()])
    stuck = site.started[0]
    stuck.silent = (Apply,)
    pool._handles[0].patience = 0.0
    assert await pool.serve([serve("web", POD2)]) == {}
    assert pool.behind == frozenset()
    async with minded(pool):
        await until(lambda: len(site.started) == 3 and site.started[2].serves == pool.serves)
    await until(lambda: stuck.told(Retire))


async def test_a_worker_that_talks_nonsense_is_replaced_like_a_silent_one(site: Site) -> None:
    pool = await site.started_pool()
    worker = site.started[0]
    worker.silent = (Apply,)
    pool._handles[0].patience = 0.0
    worker.say_raw(b"\xc1 nonsense")
    assert await pool.serve([serve()]) == {}
    async with minded(pool):
        await until(lambda: len(site.started) == 2 and site.started[1].serves == pool.serves)


async def test_a_worker_that_somebody_asks_to_end_is_replaced_first(site: Site) -> None:
    pool = await site.started_pool()
    await pool.serve([serve()])
    worker = site.started[0]
    worker.say(messages.Leaving())
    async with minded(pool):
        await until(lambda: len(site.started) == 2 and site.started[1].serves)
        worker.die()
        await until(lambda: not pool._retiring)
    assert len(site.started) == 2, "it was not to be replaced again"


async def test_a_replacement_that_fails_is_tried_again(site: Site) -> None:
    pool = await site.started_pool()
    tries = 0

    def script(worker: ScriptedWorker) -> None:
        nonlocal tries
        tries += 1
        worker.dies_at = (Begin,) if tries < 3 else ()

    site.script = script
    site.started[0].die()
    await until(lambda: not pool._handles)
    async with minded(pool):
        await until(lambda: pool._handles)
    assert tries == 3


async def test_a_system_that_runs_no_more_processes_is_asked_again(site: Site) -> None:
    pool = await site.started_pool()
    site.error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    site.started[0].die()
    async with minded(pool):
        await until(lambda: site.refused == 3)
        site.error = None
        await until(lambda: pool._handles)


async def test_a_replacement_that_fails_to_take_over_services_is_told_again_with_their_sockets(
    site: Site,
) -> None:
    pool = await site.started_pool()
    await pool.serve([serve("one"), serve("two")])
    site.script = lambda worker: worker.fails.update({Apply: "files did not arrive"})
    site.started[0].die()
    async with minded(pool) as fell:
        await until(lambda: fell)
    assert {name.service for name in pool.behind} == {"one", "two"}
    newcomer = site.started[1]
    newcomer.fails.clear()
    assert await pool.serve([serve("one"), serve("two")]) == {}
    assert newcomer.files == {
        name: os.fstat(sock.fileno()).st_ino for name, sock in pool._listeners.sockets.items()
    }
    assert pool.behind == frozenset()


async def test_a_worker_that_cannot_begin_is_no_worker(site: Site) -> None:
    def script(worker: ScriptedWorker) -> None:
        worker.fails[Begin] = "no memory"

    site.script = script
    with pytest.raises(WorkerGoneError, match="cannot begin: no memory"):
        await site.started_pool()


async def test_workers_that_do_not_start_are_an_error(site: Site) -> None:
    site.script = lambda worker: setattr(worker, "dies_at", (Begin,))
    pool = site.pool(2)
    with pytest.raises(WorkerGoneError, match="has ended"):
        await pool.start()


async def test_a_system_that_can_run_no_worker_is_an_error(site: Site) -> None:
    site.error = OSError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(OSError, match="Cannot allocate memory"):
        await site.pool().start()
