"""UDP listeners have one reader each, and the sessions of their clients go along."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from userproxy.model import messages
from userproxy.model.address import Address
from userproxy.model.heritage import SessionState
from userproxy.model.messages import InheritSessions, Retire, YieldSessions
from userproxy.model.service import Protocol
from userproxy.tests.waiting import PATIENCE_SECONDS, until
from userproxy.tests.worker.scripted import POD1, serve
from userproxy.worker import heritage
from userproxy.worker.heritage import is_read_by

if TYPE_CHECKING:
    from userproxy.model.state import Serve
    from userproxy.tests.worker.scripted import ScriptedWorker, Site


def udp(name: str, port: int = 0) -> Serve:
    return serve(name, listener=Address("127.0.0.1", port), protocol=Protocol.UDP)


def session(one: Serve, number: int = 1) -> SessionState:
    return SessionState(
        pool=one.name,
        client=Address("10.0.1.3", number),
        backend=POD1,
        age=1.0,
        idle=0.0,
        bytes_up=1,
        bytes_down=2,
        asked=1,
        answered=1,
    )


def sees(worker: ScriptedWorker, one: Serve) -> bool:
    return one.name in worker.files


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_every_udp_listener_has_exactly_one_reader(workers: int) -> None:
    for port in range(10400, 10440):
        readers = [index for index in range(workers) if is_read_by(udp("echo", port), index, workers)]
        assert len(readers) == 1
    assert all(is_read_by(serve(), index, workers) for index in range(workers))


async def test_a_new_udp_listener_goes_to_one_worker_and_one_of_tcp_to_all(site: Site) -> None:
    pool = await site.started_pool(2)
    await pool.serve([udp("echo"), serve("web")])
    assert sum(sees(worker, udp("echo")) for worker in site.started) == 1
    assert all(sees(worker, serve("web")) for worker in site.started)


async def test_sessions_come_before_their_listener_and_the_former_worker_goes_then(site: Site) -> None:
    echo = udp("echo")
    earlier = site.left_behind(echo, serve("web"))
    file = site.listening(Protocol.UDP)
    earlier.sessions = {session(echo): file}
    await site.started_pool(2)
    assert [type(order) for order in earlier.orders] == [YieldSessions, Retire]
    (heir,) = (worker for worker in site.started if sees(worker, echo))
    assert heir.inherited == {session(echo): os.fstat(file).st_ino}
    kinds = [type(order).__name__ for order in heir.orders]
    assert kinds == ["Begin", "Apply", "InheritSessions", "Apply"]
    (other,) = (worker for worker in site.started if worker is not heir)
    assert other.inherited == {}


async def test_a_crowd_of_sessions_comes_over(site: Site) -> None:
    echo = udp("echo")
    earlier = site.left_behind(echo)
    earlier.sessions = {session(echo, number): site.listening(Protocol.UDP) for number in range(1, 151)}
    await site.started_pool()
    assert len(site.started[0].inherited) == 150
    assert len(site.started[0].told(InheritSessions)) == 2


async def test_the_sessions_of_a_worker_that_is_replaced_go_to_the_next_one(site: Site) -> None:
    pool = await site.started_pool()
    await pool.serve([udp("echo")])
    former = site.started[0]
    former.sessions = {session(udp("echo")): site.listening(Protocol.UDP)}
    pool._dismiss(pool._handles[0])
    await pool._hire(0)
    await pool._give_datagrams([0])
    assert site.started[1].inherited.keys() == {session(udp("echo"))}
    assert sees(site.started[1], udp("echo"))


async def test_a_worker_that_does_not_give_its_sessions_up_delays_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heritage, "_SECONDS", 0.0)
    earlier = site.left_behind(udp("echo"))
    earlier.silent = (YieldSessions,)
    earlier.sessions = {session(udp("echo")): site.listening(Protocol.UDP)}
    pool = await site.started_pool()
    assert sees(site.started[0], udp("echo"))
    await until(lambda: earlier.told(Retire))
    handle = pool._retiring[0]
    earlier.say(messages.Sessions(serial=1, sessions=(session(udp("echo")),)), site.listening(Protocol.UDP))
    await handle.ask(messages.Count(), seconds=PATIENCE_SECONDS)  # behind which that has arrived
    assert handle.yielded == [], "what comes too late is closed"
    earlier.die()


async def test_sessions_of_a_service_that_nobody_serves_are_closed(site: Site) -> None:
    earlier = site.left_behind(udp("echo"))
    earlier.sessions = {session(udp("gone")): site.listening(Protocol.UDP)}
    pool = await site.started_pool()
    assert site.started[0].inherited == {}
    assert pool._heritage._sessions == []


async def test_a_port_that_changes_its_protocol_has_another_listener(site: Site) -> None:
    pool = await site.started_pool()
    await pool.serve([serve("web")])
    before = dict(site.started[0].files)
    await pool.serve([udp("web")])
    assert site.started[0].files != before
