"""Workers do as they are told, and together look like one data side."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from integration.vitals import open_files
from integration.worker.site import (
    BEGIN,
    Client,
    Site,
    is_running,
    live,
    minded,
    pids,
    refused,
    rows,
    serve,
    until,
)
from userproxy.model import messages
from userproxy.model.address import Address
from userproxy.tests.sockets import open_fds
from userproxy.worker.handle import OrderFailedError, WorkerGoneError
from userproxy.worker.origin import processes
from userproxy.worker.pool import WorkerPool


async def test_a_served_port_leads_to_its_backend_and_a_closed_one_refuses(site: Site) -> None:
    server = await site.server()
    pool = await site.pool()
    wanted = serve("web", server.address)
    assert await pool.serve([wanted]) == {}
    assert pool.serves == {wanted.name: wanted}
    client = await Client.connect(wanted.listener)
    assert client.server == "server1"
    (row,) = await rows(pool)
    assert (row.service, row.backend, row.state) == ("default/web", str(server.address), "established")
    assert row.id == f"{pids(pool)[0]}-1"
    assert await live(pool) == [1]
    await pool.close([wanted.name])
    assert pool.serves == {}
    assert await client.is_served()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(wanted.listener)
    await client.close()


async def test_a_port_that_somebody_else_has_is_a_failure_and_the_others_are_served(site: Site) -> None:
    server = await site.server()
    pool = await site.pool()
    taken, fine = serve("taken", server.address, listener=server.address), serve("fine", server.address)
    failures = await pool.serve([taken, fine])
    assert [str(name) for name in failures] == ["default/taken"]
    assert list(pool.serves) == [fine.name]
    await (await Client.connect(fine.listener)).close()


async def test_new_backends_and_a_new_listener_are_taken_over(site: Site) -> None:
    first, second = await site.server("server1"), await site.server("server2")
    pool = await site.pool()
    wanted = serve("web", first.address)
    await pool.serve([wanted])
    changed = serve("web", second.address, listener=wanted.listener)
    await pool.serve([changed])
    client = await Client.connect(wanted.listener)
    assert client.server == "server2"
    moved = serve("web", first.address)
    await pool.serve([moved])
    assert (await Client.connect(moved.listener)).server == "server1"
    assert await client.is_served()
    late = await Client.connect(wanted.listener)
    assert late.server == "server1", "packets lead there until the kernel's rules are changed"
    await refused(wanted.listener)
    assert await late.is_served()


async def test_services_larger_than_a_packet_and_more_than_one_message_holds(site: Site) -> None:
    server = await site.server()
    pool = await site.pool()
    many = [Address(f"10.{one >> 16}.{one >> 8 & 255}.{one & 255}", 8080) for one in range(20_000)]
    large = serve("large", server.address, *many)
    assert await pool.serve([large, *(serve(f"web{number}", server.address) for number in range(250))]) == {}
    assert len(pool.serves) == 251
    assert (await Client.connect(large.listener)).server == "server1"
    pool.leave()
    heir = await site.pool()
    assert heir.serves == pool.serves


async def test_two_workers_share_the_load_and_the_rotation_stays_even(site: Site) -> None:
    servers = [await site.server("server1"), await site.server("server2")]
    pool = await site.pool(2)
    wanted = serve("web", *(server.address for server in servers))
    await pool.serve([wanted])
    clients = await asyncio.gather(*(Client.connect(wanted.listener) for _ in range(200)))
    listed = [row.id.partition("-")[0] for row in await rows(pool)]
    assert await live(pool) == [listed.count(str(pid)) for pid in pids(pool)]
    assert min(await live(pool)) > 0
    assert len({row.id for row in await rows(pool)}) == 200
    # Each worker's own rotation is even, and they begin at different places.
    assert abs(servers[0].clients - servers[1].clients) <= 2
    await asyncio.gather(*(client.close() for client in clients))


async def test_draining_gives_time_counts_whom_it_cut_and_ends_the_workers(site: Site) -> None:
    pool, wanted = await site.serving(2)
    clients = [await Client.connect(wanted.listener) for _ in range(3)]
    workers = pids(pool)
    draining = asyncio.ensure_future(pool.drain(30))
    await clients[0].close()
    assert await clients[1].is_served()
    await refused(wanted.listener)
    pool.end_drain()
    assert await draining == 2
    assert [await client.is_reset() for client in clients[1:]] == [True, True]
    await until(lambda: not any(map(is_running, workers)))


async def test_an_order_that_fails_is_told_and_the_worker_goes_on(site: Site) -> None:
    pool, wanted = await site.serving()
    (handle,) = pool._everybody()
    with pytest.raises(OrderFailedError, match="Apply"):
        await handle.ask(messages.Apply(serves=(wanted,), opens=(wanted.name,)))  # the socket is missing
    assert (await Client.connect(wanted.listener)).server == "server1"


async def test_a_port_that_a_worker_cannot_take_over_is_a_failure_and_may_be_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await site.server()
    pool = await site.pool(2)
    wanted = serve("web", server.address)
    with monkeypatch.context() as patch:

        async def forget_fds(*_: object, **__: object) -> str:
            return "files did not arrive"

        patch.setattr(pool._teller, "order", forget_fds)
        failures = await pool.serve([wanted])
    assert {str(name): error.strerror for name, error in failures.items()} == {
        "default/web": "files did not arrive"
    }
    assert pool.serves == {}
    assert await pool.serve([wanted]) == {}
    assert (await Client.connect(wanted.listener)).server == "server1"


async def test_an_order_that_nobody_understands_does_no_harm(site: Site) -> None:
    pool = await site.pool()
    (handle,) = pool._everybody()
    before = open_files(handle.pid)
    handle._channel.send(b"\xc1 another version's", [0, 1])
    await pool.count()
    assert (handle.is_alive, open_files(handle.pid)) == (True, before)


async def test_nothing_is_left_open_after_many_ports_came_and_went(site: Site) -> None:
    server = await site.server()
    pool = await site.pool(2)
    workers = pids(pool)
    steady = serve("steady", server.address)
    await pool.serve([steady])
    before = open_fds(), [open_files(pid) for pid in workers]
    for number in range(100):
        wanted = serve(f"web{number}", server.address)
        await pool.serve([wanted])
        await pool.close([wanted.name])
    assert open_fds() <= before[0]
    assert [open_files(pid) for pid in workers] == before[1]


async def test_workers_that_do_not_start_are_a_plain_error_and_none_is_left(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WorkerPool(2, BEGIN, processes(site.prefix))
    site.pools.append(pool)
    monkeypatch.setattr("userproxy.worker.origin.sys.executable", "/bin/false")
    with pytest.raises(WorkerGoneError, match="has ended"):
        await pool.start()
    assert pool._everybody() == []


async def test_a_system_that_runs_no_more_processes_is_a_plain_error_and_nothing_stays_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WorkerPool(1, BEGIN, processes(site.prefix))
    before = open_fds()
    monkeypatch.setattr("userproxy.worker.origin.sys.executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        await pool.start()
    assert open_fds() <= before


async def test_a_worker_asked_to_end_by_somebody_else_is_replaced_first(site: Site) -> None:
    pool, wanted = await site.serving()
    (pid,) = pids(pool)
    client = await Client.connect(wanted.listener)
    async with minded(pool):
        os.kill(pid, signal.SIGTERM)
        await until(lambda: pids(pool) not in ([], [pid]))
        assert await client.is_served()
        assert {row.id for row in await rows(pool)} == {f"{pid}-1"}
        fresh = await Client.connect(wanted.listener)
        assert {row.id.partition("-")[0] for row in await rows(pool)} == {str(pid), str(pids(pool)[0])}
        await client.close()
        await until(lambda: not is_running(pid))
        assert await fresh.is_served()
