"""The control process's side: steering processes are started, told and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from userproxy.model import messages
from userproxy.model.endings import Reason
from userproxy.model.filter import RecordFilter
from userproxy.model.heritage import Judgement, Pin
from userproxy.model.messages import (
    BeginSteering,
    Count,
    Ending,
    Judgements,
    KeepRecords,
    LearnJudgements,
    LearnPins,
    ListPins,
    ListRecords,
    Pins,
    ReadQueue,
    Retire,
    SteerPools,
    YieldQueue,
)
from userproxy.model.records import row_of
from userproxy.tests.records import RECORD
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import POD1, POD2, counted, totals
from userproxy.tests.worker.steering.scripted import BEGIN, ScriptedSteering, steer
from userproxy.worker.steering import crew as crew_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from userproxy.model.service import PoolName
    from userproxy.model.state import Steer
    from userproxy.tests.sockets import Sockets
    from userproxy.tests.worker.steering.scripted import CrewSite
    from userproxy.worker.steering.crew import Crew


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked after them all the time, and they are replaced without a pause."""
    for name in ("_RESPAWN_SECONDS", "_LOOK_SECONDS"):
        monkeypatch.setattr(crew_module, name, 0.0)


@contextlib.asynccontextmanager
async def minded(crew: Crew) -> AsyncIterator[None]:
    """Processes are replaced meanwhile."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(crew.mind())
        try:
            yield
        finally:
            task.cancel()


def wanted(*steers: Steer) -> dict[PoolName, Steer]:
    return {each.name: each for each in steers}


def queue_of(sockets: Sockets) -> tuple[socket.socket, int]:
    """What stands for the socket of a queue, and its inode."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sockets.finally_call(sock.close)
    return sock, os.fstat(sock.fileno()).st_ino


async def test_while_nothing_is_steered_there_is_no_process(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer({})
    assert site.started == []
    assert await crew.count() == []
    assert crew.pids == ()


async def test_with_the_first_it_is_started_and_told_how_to_work_and_what_to_choose(
    site: CrewSite,
) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    (process,) = site.started
    (begin,) = process.told(BeginSteering)
    assert isinstance(begin, BeginSteering)
    assert (begin.queue, begin.log_level, process.inode) == (BEGIN.queue, BEGIN.log_level, 0)
    assert process.steers == {"web": (POD1,)}


async def test_then_it_is_told_what_changes_and_nothing_else(site: CrewSite) -> None:
    crew, cart = site.crew(), steer("cart")
    await crew.steer(wanted(steer(), cart))
    await crew.steer(wanted(steer("web", POD1, POD2), cart))
    (process,) = site.started
    last = process.told(SteerPools)[-1]
    assert isinstance(last, SteerPools)
    assert [each.name.service for each in last.steers] == ["web"]
    assert process.steers == {"web": (POD1, POD2), "cart": (POD1,)}
    await crew.steer(wanted(cart))
    assert process.steers == {"cart": (POD1,)}
    before = len(process.orders)
    await crew.steer(wanted(cart))
    assert len(process.orders) == before


async def test_one_that_dies_is_replaced_and_the_next_one_is_told_everything(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer(), steer("cart", POD2)))
    async with minded(crew):
        site.started[0].die()
        await until(lambda: len(site.started) == 2 and len(site.started[1].steers) == 2)
    assert site.started[1].steers == {"web": (POD1,), "cart": (POD2,)}
    assert crew.past_counters.worker_restarts == {"died": 1}


async def test_what_it_has_counted_stays_when_it_is_gone(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    (process,) = site.started
    process.answers[Count] = [totals(3)]
    assert await crew.count() == [messages.Totals(serial=4, connections=3, counters=counted(3))]
    assert crew.living_counters == {101: counted(3)}
    process.die()
    await until(lambda: not crew.living_counters)
    assert crew.past_counters.connections_opened == 3


async def test_one_that_hangs_is_ended_and_replaced(site: CrewSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_SILENCE_SECONDS", 0.0)
    crew = site.crew()
    site.has_bodies = True
    await crew.steer(wanted(steer()))
    site.has_bodies = False
    site.started[0].die()  # its body still has the channel, and says nothing
    (body,) = site.bodies
    assert crew.pids == (body.pid,)
    async with minded(crew):
        await until(lambda: len(site.started) > 1 and site.started[1].steers)
    await until(lambda: not Path(f"/proc/{body.pid}").exists())


async def test_the_next_goes_on_with_the_queue_of_an_earlier_one(site: CrewSite, sockets: Sockets) -> None:
    queue, inode = queue_of(sockets)
    earlier = ScriptedSteering(99, queue)
    site.earlier.append(earlier)
    await site.crew().steer(wanted(steer()))
    assert [type(order) for order in earlier.orders] == [ListPins, YieldQueue, Retire]
    assert site.started[0].inode == inode
    assert site.started[0].steers == {"web": (POD1,)}


async def test_of_several_earlier_ones_it_goes_on_with_one_queue(site: CrewSite, sockets: Sockets) -> None:
    (first, inode), (second, _) = queue_of(sockets), queue_of(sockets)
    site.earlier = [ScriptedSteering(98, first), ScriptedSteering(99, second)]
    await site.crew().steer(wanted(steer()))
    assert site.started[0].inode == inode


async def test_an_earlier_one_that_hangs_is_ended(site: CrewSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the queue, so packets would wait there for ever, and no other process could read it."""
    monkeypatch.setattr(crew_module, "_PATIENCE_SECONDS", 0.0)
    earlier = ScriptedSteering(99)
    earlier.is_mute = True
    site.earlier.append(earlier)
    site.has_bodies = True
    crew = site.crew()
    await crew.steer(wanted(steer()))
    assert site.started[0].inode == 0
    earlier.die()
    await until(lambda: not Path(f"/proc/{site.bodies[0].pid}").exists())
    assert crew.pids == (site.bodies[1].pid,)


def learned(process: ScriptedSteering) -> tuple[list[str], list[str]]:
    """The clients of whose pins it was told, and the IPs of the pods of which anything was."""
    pins = [pin.client for order in process.told(LearnPins) for pin in order.pins]  # type: ignore[attr-defined]
    told = [each for order in process.told(LearnJudgements) for each in order.backends]  # type: ignore[attr-defined]
    return pins, [each.backend.ip for each in told]


async def test_the_next_learns_what_an_earlier_one_has_known_and_its_last_words_before_packets_come(
    site: CrewSite, sockets: Sockets
) -> None:
    queue, _ = queue_of(sockets)
    earlier = ScriptedSteering(99, queue)
    name = steer().name
    earlier.answers[ListPins] = [
        Pins(pool=name, pins=(Pin("10.0.9.1", POD1, 5.0),)),
        Judgements(pool=name, backends=(Judgement(POD1, ejections=1, until=4.0),)),
    ]
    earlier.answers[YieldQueue] = [
        Pins(pool=name, pins=(Pin("10.0.9.2", POD1, 0.0),)),
        Judgements(pool=name, backends=(Judgement(POD2, failures=2),)),
    ]
    site.earlier.append(earlier)
    await site.crew().steer(wanted(steer()))
    (process,) = site.started
    assert learned(process) == (["10.0.9.1", "10.0.9.2"], [POD1.ip, POD2.ip])
    assert isinstance(process.orders[-1], ReadQueue)


async def test_what_one_that_has_died_said_in_time_the_next_one_learns(site: CrewSite) -> None:
    crew, name = site.crew(), steer().name
    await crew.steer(wanted(steer(), steer("cart", POD2)))
    (process,) = site.started
    process.say(Pins(pool=name, pins=(Pin("10.0.9.1", POD1, 5.0),)))
    process.say(Judgements(pool=name, backends=(Judgement(POD1, failures=1), Judgement(POD2, failures=1))))
    process.say(Judgements(pool=name, backends=(Judgement(POD2),)))
    process.say(Pins(pool=steer("cart").name, pins=(Pin("10.0.9.1", POD2, 5.0),)))
    await crew.count()
    await crew.steer(wanted(steer()))
    async with minded(crew):
        process.die()
        await until(lambda: len(site.started) == 2 and site.started[1].told(ReadQueue))
    assert learned(site.started[1]) == (["10.0.9.1"], [POD1.ip])


async def test_the_next_learns_where_the_rules_have_sent_clients(site: CrewSite) -> None:
    async def recalled() -> list[Pins]:
        return [Pins(pool=steer().name, pins=(Pin("10.0.9.7", POD1, 1.0),))]

    crew = site.crew()
    crew.recall = recalled
    await crew.steer(wanted(steer()))
    assert learned(site.started[0]) == (["10.0.9.7"], [])


async def test_where_nothing_is_steered_now_an_earlier_one_goes(site: CrewSite, sockets: Sockets) -> None:
    queue, _ = queue_of(sockets)
    earlier = ScriptedSteering(99, queue)
    site.earlier.append(earlier)
    await site.crew().steer({})
    await until(lambda: earlier.is_left or earlier.orders)
    assert [type(order) for order in earlier.orders] == [Retire]
    assert site.started == []


async def test_that_none_can_be_started_is_told_and_tried_again(site: CrewSite) -> None:
    site.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    crew = site.crew()
    with capture_logs() as lines:
        await crew.steer(wanted(steer()))
    assert [line["event"] for line in lines] == ["nobody chooses for steered connections: the rules do"]
    site.error = None
    async with minded(crew):
        await until(lambda: site.started and site.started[0].steers)
    assert site.started[0].steers == {"web": (POD1,)}


async def test_one_that_cannot_begin_is_not_kept(site: CrewSite) -> None:
    crew = site.crew()
    site.script = lambda process: process.fails.update({BeginSteering: "NetfilterError: cannot read it"})
    await crew.steer(wanted(steer()))
    assert crew.living_counters == {}
    assert site.started[0].steers == {}
    site.script = lambda _: None
    async with minded(crew):
        await until(lambda: len(site.started) > 1 and site.started[-1].steers)


async def test_what_it_failed_at_it_is_told_again(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    (process,) = site.started
    process.fails[SteerPools] = "KeyError: 'web'"
    await crew.steer(wanted(steer("web", POD2)))
    process.fails.clear()
    failed = len(process.told(SteerPools))
    async with minded(crew):
        await until(lambda: len(process.told(SteerPools)) > failed)
    last = process.told(SteerPools)[-1]
    assert isinstance(last, SteerPools)
    assert [pod.address for each in last.steers for pod in each.backends] == [POD2]


async def test_with_the_last_service_and_the_last_connection_it_goes_and_has_not_died(site: CrewSite) -> None:
    crew, left = site.crew(), list[bytes]()
    crew.bequeath = left.extend
    await crew.steer(wanted(steer()))
    (process,) = site.started
    process.answers[Retire] = [messages.Records(records=(b"one",))]
    process.answers[Count] = [totals(3, closed=2)]
    async with minded(crew):
        await crew.steer({})
        asked = len(process.told(Count))
        await until(lambda: len(process.told(Count)) > asked + 1)
        assert not process.told(Retire)
        process.answers[Count] = [totals(3, closed=3)]
        await until(lambda: process.told(Retire) and not crew.living_counters)
        await until(lambda: left)
        assert (left, crew.recollection.unclaimed) == ([b"one"], [])
        assert crew.past_counters.worker_restarts == {}
        await crew.steer(wanted(steer()))
        assert len(site.started) == 2
        asked = len(site.started[1].told(Count))
        await until(lambda: len(site.started[1].told(Count)) > asked + 1)
    assert not site.started[1].told(Retire)


async def test_who_is_told_that_clients_wait(site: CrewSite) -> None:
    crew, told = site.crew(), list[str]()
    crew.on_need = lambda pool: told.append(pool.service)
    await crew.steer(wanted(steer()))
    site.started[0].say(messages.NeedPods(pool=steer().name))
    await until(lambda: told)
    assert told == ["web"]


async def test_a_log_level_is_for_this_process_and_for_the_next(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    crew.set_log_level("debug")
    await crew.count()
    (told,) = site.started[0].told(messages.SetLogLevel)
    assert isinstance(told, messages.SetLogLevel)
    assert told.level == "debug"
    async with minded(crew):
        site.started[0].die()
        await until(lambda: len(site.started) == 2 and site.started[1].told(BeginSteering))
    (begin,) = site.started[1].told(BeginSteering)
    assert isinstance(begin, BeginSteering)
    assert begin.log_level == "debug"


async def test_when_the_daemon_stops_it_goes_and_has_not_died(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    await crew.stop()
    assert len(site.started[0].told(Retire)) == 1
    await until(lambda: not crew.pids)
    assert crew.past_counters.worker_restarts == {}


async def test_when_the_daemon_leaves_it_goes_on(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    crew.leave()
    await until(lambda: site.started[0].is_left)
    assert site.started[0].told(Retire) == []


async def test_it_is_said_beforehand_why_connections_are_about_to_end(site: CrewSite) -> None:
    crew = site.crew()
    await crew.expect([b"nobody is there"], Reason.KILLED)
    await crew.steer(wanted(steer()))
    await crew.expect([b"one", b"two"], Reason.KILLED)
    (process,) = site.started
    (told,) = process.told(Ending)
    assert isinstance(told, Ending)
    assert (set(told.flows), told.reason) == ({b"one", b"two"}, Reason.KILLED)


async def test_what_a_process_leaves_the_next_one_keeps_and_is_asked_for(site: CrewSite) -> None:
    earlier = ScriptedSteering(7)
    earlier.answers[Retire] = [messages.Records(records=(b"one", b"two"))]
    site.earlier = [earlier]
    crew = site.crew()
    await crew.steer(wanted(steer()))
    (process,) = site.started
    await until(lambda: bool(process.told(KeepRecords)))
    (kept,) = process.told(KeepRecords)
    assert isinstance(kept, KeepRecords)
    assert kept.records == (b"one", b"two")
    row = row_of(RECORD)
    process.answers[ListRecords] = [messages.RecordListing(rows=(row,))]
    assert [chunk async for chunk in crew.recollection.records(RecordFilter())] == [[row]]
    process.answers[Retire] = [messages.Records(records=(b"three",))]
    await crew.stop()
    assert crew.recollection.unclaimed == [b"three"], "for the file that the next daemon reads"


async def test_what_a_process_leaves_that_ends_by_itself_is_not_given_back_to_it(site: CrewSite) -> None:
    crew = site.crew()
    async with minded(crew):
        await crew.steer(wanted(steer()))
        process = site.started[0]
        process.say(messages.Records(records=(b"one",)))
        await until(lambda: crew.recollection.unclaimed == [b"one"])
        process.die()
        await until(lambda: len(site.started) > 1 and bool(site.started[1].told(KeepRecords)))
    assert not process.told(KeepRecords)


async def test_two_connections_that_the_kernel_called_the_same_are_both_told(site: CrewSite) -> None:
    crew = site.crew()
    await crew.steer(wanted(steer()))
    first, later = (
        msgspec.structs.replace(row_of(RECORD), id="ct-7", ended_at=f"2026-11-27T12:0{minute}:04.250+00:00")
        for minute in (3, 4)
    )
    site.started[0].answers[ListRecords] = [
        messages.RecordListing(rows=(first,)),
        messages.RecordListing(rows=(first, later)),
    ]
    found = [row async for chunk in crew.recollection.records(RecordFilter()) for row in chunk]
    assert found == [first, later]
