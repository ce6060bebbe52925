"""Whoever dies, on either side, the others go on, and clients hardly notice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import msgspec
import pytest

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
    zombies,
)
from userproxy.model.address import Address
from userproxy.worker import rendezvous
from userproxy.worker.orphans import end_orphans


async def test_a_worker_that_dies_takes_its_connections_along_and_is_replaced(site: Site) -> None:
    pool, wanted = await site.serving(2)
    victim, survivor = pids(pool)
    clients: dict[str, Client] = {}
    while len(clients) < 20 or len({row.partition("-")[0] for row in clients}) < 2:
        client = await Client.connect(wanted.listener)
        clients |= {row.id: client for row in await rows(pool) if row.id not in clients}
    async with minded(pool):
        os.kill(victim, signal.SIGKILL)
        # Nobody is refused: the listening socket never goes away.
        during = await asyncio.gather(*(Client.connect(wanted.listener) for _ in range(20)))
        await until(lambda: victim not in pids(pool) and len(pids(pool)) == 2)
        assert survivor in pids(pool)
    for row, client in clients.items():
        if row.startswith(f"{survivor}-"):
            assert await client.is_served()
        else:
            assert await client.is_reset()
    assert [await client.is_served() for client in during] == [True] * 20
    await until(lambda: not zombies([victim]))


async def test_the_only_worker_dies_and_clients_wait_for_the_next_one(site: Site) -> None:
    pool, wanted = await site.serving()
    (victim,) = pids(pool)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: pids(pool) == [])
    waiting = asyncio.ensure_future(Client.connect(wanted.listener))
    async with minded(pool):
        assert (await waiting).server == "server1"
    assert pids(pool) != [victim]


@pytest.mark.parametrize("finished", [False, True], ids=["both ways", "half-closed"])
async def test_nothing_that_a_killed_worker_had_under_way_looks_complete(site: Site, finished: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as backend:
        backend.settimeout(5)
        pool = await site.pool()
        wanted = serve("web", Address(*backend.getsockname()))
        await pool.serve([wanted])
        (victim,) = pids(pool)
        with socket.create_connection((wanted.listener.ip, wanted.listener.port), 5) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if finished:
                client.shutdown(socket.SHUT_WR)
            there, _ = backend.accept()
            with there:
                there.settimeout(5)
                assert there.recv(100) == b"GET / HTTP/1.0\r\n\r\n"
                there.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf of")  # it ends when the connection does
                assert client.recv(100).endswith(b"half of")
                os.kill(victim, signal.SIGKILL)
                with pytest.raises(ConnectionResetError):
                    client.recv(100)
                if not finished:  # or else it had everything, and has been told so
                    with pytest.raises(ConnectionResetError):
                        there.recv(100)


async def test_the_next_control_side_takes_over_while_connections_live(site: Site) -> None:
    first, wanted = await site.serving(2)
    old = pids(first)
    clients = [await Client.connect(wanted.listener) for _ in range(5)]
    known = {row.id for row in await rows(first)}
    first.leave()
    assert [await client.is_served() for client in clients] == [True] * 5
    clients.append(await Client.connect(wanted.listener))
    second = await site.pool()
    assert second.serves == {wanted.name: wanted}
    assert known < {row.id for row in await rows(second)}
    fresh = await Client.connect(wanted.listener)
    (row,) = (row for row in await rows(second) if row.id.startswith(f"{pids(second)[0]}-"))
    assert row.service == "default/web"
    assert [await client.is_served() for client in [*clients, fresh]] == [True] * 7
    await asyncio.gather(*(client.close() for client in clients[:5]))
    assert await second.drain(0) == 2  # one through an old worker, and the fresh one
    await until(lambda: not any(map(is_running, old)))


async def test_a_control_side_may_come_before_the_worker_has_noticed_that_the_other_is_gone(
    site: Site,
) -> None:
    first, wanted = await site.serving()
    (pid,) = pids(first)
    (handle,) = first._everybody()
    os.kill(pid, signal.SIGSTOP)  # busy with something else
    visits = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    taking_over = asyncio.ensure_future(site.pool())
    await until(lambda: len(site.pools) == 2 and len(site.pools[1]._retiring) == 1)
    handle.retiring = True
    os.kill(pid, signal.SIGCONT)
    await first.count()  # it has seen the visitor, and still listens to the first one
    first.leave()
    second = await taking_over
    assert second.serves == {wanted.name: wanted}
    for visit in visits:
        visit.close()


async def test_a_stopped_worker_delays_neither_the_start_nor_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userproxy.worker.pool._ADOPT_SECONDS", 0.2)
    monkeypatch.setattr("userproxy.worker.draining.HURRY_SECONDS", 0.2)
    first, _ = await site.serving()
    (stopped,) = pids(first)
    first.leave()
    os.kill(stopped, signal.SIGSTOP)
    second = await site.pool()
    assert second.serves == {}  # its listeners cannot be had
    other = serve("web", site.servers[0].address)
    assert await second.serve([other]) == {}
    client = await Client.connect(other.listener)
    assert len(await rows(second)) == 1  # not waiting for it
    assert await client.is_served()
    await second.drain(0)
    await until(lambda: not is_running(stopped))


async def test_a_worker_that_was_stopped_retires_when_it_wakes_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userproxy.worker.pool._ADOPT_SECONDS", 0.2)
    first, wanted = await site.serving()
    client = await Client.connect(wanted.listener)
    (stopped,) = pids(first)
    first.leave()
    os.kill(stopped, signal.SIGSTOP)
    second = await site.pool()
    os.kill(stopped, signal.SIGCONT)
    assert await client.is_served()
    (late,) = second._retiring
    await until(lambda: not late._silent)
    assert await live(second) == [0, 1]
    await client.close()
    await until(lambda: not is_running(stopped))
    assert await second.serve([wanted]) == {}  # and its port is free again: nobody here holds it


async def test_a_worker_that_misses_an_order_is_replaced_and_not_ended(site: Site) -> None:
    pool, wanted = await site.serving()
    client = await Client.connect(wanted.listener)
    (stopped,) = pids(pool)
    os.kill(stopped, signal.SIGSTOP)
    pool._handles[0].patience = 0.1
    async with minded(pool):
        other = serve("other", site.servers[0].address)
        assert await pool.serve([other]) == {}
        await until(lambda: pids(pool) not in ([], [stopped]))
        assert (await Client.connect(other.listener)).server == "server1"
        assert (await Client.connect(wanted.listener)).server == "server1"
        os.kill(stopped, signal.SIGCONT)
        assert await client.is_served()
        await client.close()
        await until(lambda: not is_running(stopped))


async def test_an_orphan_ends_in_time_and_says_so_to_its_clients(site: Site) -> None:
    pool, wanted = await site.serving(begin=msgspec.structs.replace(BEGIN, orphan_seconds=0.0))
    client = await Client.connect(wanted.listener)
    (pid,) = pids(pool)
    pool.leave()
    assert await client.is_reset()
    await until(lambda: not is_running(pid))


async def test_an_orphan_that_serves_nothing_ends_at_once(site: Site) -> None:
    pool = await site.pool()
    (pid,) = pids(pool)
    pool.leave()
    await until(lambda: not is_running(pid))


async def test_an_orphan_that_is_told_to_end_serves_its_connections_to_their_end(site: Site) -> None:
    pool, wanted = await site.serving()
    client = await Client.connect(wanted.listener)
    (pid,) = pids(pool)
    pool.leave()
    visits = rendezvous.connect_to_all(site.prefix)  # when it has let somebody in, it knows that it is alone
    for visit, _ in visits:
        visit.settimeout(0)
        await asyncio.get_running_loop().sock_recv(visit, 1)
        visit.close()
    os.kill(pid, signal.SIGTERM)
    await refused(wanted.listener)
    assert await client.is_served()
    await client.close()
    await until(lambda: not is_running(pid))


@pytest.mark.parametrize("stopped", ["", "stopped"])
async def test_cleanup_ends_orphans_and_only_those(
    site: Site, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    if stopped:
        monkeypatch.setattr("userproxy.worker.orphans._SECONDS", 0.2)
    pool, wanted = await site.serving(2)
    other = await Site(f"other-{site.prefix}").pool()
    site.pools.append(other)
    client = await Client.connect(wanted.listener)
    workers = sorted(pids(pool))
    pool.leave()
    if stopped:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
    assert list(await asyncio.to_thread(end_orphans, site.prefix)) == workers
    assert await client.is_reset()
    await until(lambda: not any(map(is_running, workers)))
    assert is_running(pids(other)[0])
    assert await asyncio.to_thread(end_orphans, site.prefix) == ()
