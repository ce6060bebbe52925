"""One worker, as the control side sees it: orders and answers, silence, nonsense, and its end."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.model import messages
from userproxy.model.filter import ConnectionFilter
from userproxy.model.messages import Count, Killed, ListConnections, Retire
from userproxy.tests.sockets import open_fds
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import ScriptedWorker, counted, serve, totals
from userproxy.worker.channel import pair
from userproxy.worker.handle import Callbacks, OrderFailedError, WorkerGoneError, WorkerHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from userproxy.tests.sockets import Sockets

PID = 101


class Line:
    """A handle, and its worker.

    Attributes:
        gone: how often it was told that the worker has ended.
        leaving: how often it was told that somebody has asked the worker to end.
    """

    def __init__(self) -> None:
        self.gone = 0
        self.leaving = 0
        ours, self.theirs = pair()
        self.worker = ScriptedWorker(PID)
        self.worker.is_mute = True
        self.handle = WorkerHandle(ours, 0, Callbacks(gone=self._on_gone, leaving=self._on_leaving))

    def _on_gone(self, handle: WorkerHandle) -> None:
        assert handle is self.handle
        self.gone += 1

    def _on_leaving(self, handle: WorkerHandle) -> None:
        assert handle is self.handle
        self.leaving += 1


@pytest.fixture
async def line(sockets: Sockets) -> AsyncIterator[Line]:
    """A worker that has said nothing yet."""
    del sockets
    made = Line()
    yield made
    made.handle.leave()
    made.worker.die()
    made.theirs.close()


@pytest.fixture
async def working(line: Line) -> Line:
    """A worker that is ready."""
    line.worker.is_mute = False
    line.worker.attend(line.theirs)
    await line.handle.ready()
    return line


async def test_a_worker_says_who_it_is_where_its_process_cannot_be_seen(working: Line) -> None:
    assert (working.handle.pid, working.handle.held) == (PID, [])


async def test_it_is_ready_when_it_has_said_all_that_it_holds(line: Line) -> None:
    line.worker.attend(line.theirs)
    line.worker.say(messages.Hello(pid=PID, holds=2))
    reading, writing = os.pipe()
    first, second = serve("one"), serve("two")
    line.worker.say(messages.Holds(serves=(first,)), reading)
    ready = asyncio.ensure_future(line.handle.ready())
    line.worker.say(messages.Holds(serves=(second,)), writing)
    await ready
    assert [held for held, _ in line.handle.held] == [first, second]
    for fd in (reading, writing, *(fd for _, fd in line.handle.held)):
        os.close(fd)


async def test_files_that_did_not_arrive_are_not_waited_for(line: Line) -> None:
    line.worker.attend(line.theirs)
    line.worker.say(messages.Hello(pid=PID, holds=2, beats=True))
    reading, writing = os.pipe()
    line.worker.say(messages.Holds(serves=(serve("one"), serve("two"))), reading)
    await line.handle.ready()
    assert not line.handle.beats, "who takes over from it does not serve all of that"
    (held,) = line.handle.held
    assert held[0] == serve("one")
    for fd in (reading, writing, held[1]):
        os.close(fd)


async def test_what_a_worker_holds_is_given_back_if_it_takes_too_long_to_say_so(line: Line) -> None:
    reading, writing = os.pipe()
    before = open_fds()
    line.worker.attend(line.theirs)
    for number in range(2):  # the second one comes after it has been given up
        line.worker.say(messages.Hello(pid=PID, holds=5))
        line.worker.say(messages.Holds(serves=(serve(),)), reading)
        if number == 0:
            await until(lambda: line.handle.held)
            with pytest.raises(WorkerGoneError, match=f"worker {PID} does not answer"):
                await line.handle.ready(0.0)
    await line_is_read(line)
    assert open_fds() == before
    os.close(reading)
    os.close(writing)


async def line_is_read(line: Line) -> None:
    """Everything that the worker has said was heard."""
    line.worker.say(messages.Leaving())
    told = line.leaving
    await until(lambda: line.leaving > told)


async def test_an_order_is_answered_with_its_own_parts(working: Line) -> None:
    working.worker.answers = {Count: [totals(3)], ListConnections: [messages.ConnectionListing(rows=())]}
    counts, listing = await asyncio.gather(
        working.handle.ask(Count()), working.handle.ask(ListConnections(wanted=ConnectionFilter()))
    )
    assert [type(part).__name__ for part in (*counts, *listing)] == ["Totals", "ConnectionListing"]


async def test_answers_to_orders_that_nobody_waits_for_are_ignored(working: Line) -> None:
    working.worker.say(Killed(serial=99, count=5))
    working.worker.say(messages.Done(serial=99))
    assert await working.handle.ask(Retire()) == []


async def test_a_late_answer_is_not_taken_for_that_of_the_next_order(working: Line) -> None:
    working.worker.silent = (messages.Kill,)
    with pytest.raises(WorkerGoneError):
        await working.handle.ask(messages.Kill(), seconds=0.0)
    await until(lambda: working.worker.told(messages.Kill))
    (late,) = working.worker.told(messages.Kill)
    working.worker.say(Killed(serial=late.serial, count=7))
    working.worker.answers = {Count: [Killed(count=1)]}
    assert [part.count for part in await working.handle.ask(Count(), seconds=20.0)] == [1]  # type: ignore[union-attr]


async def test_files_go_with_an_order_and_stay_open_here(working: Line) -> None:
    reading, writing = os.pipe()
    wanted = serve()
    await working.handle.ask(messages.Apply(serves=(wanted,), opens=(wanted.name,)), [reading])
    assert working.worker.files == {wanted.name: os.fstat(reading).st_ino}
    os.close(reading)
    os.close(writing)


async def test_an_order_that_fails_is_told_with_its_reason_and_the_worker_lives(working: Line) -> None:
    working.worker.fails = {messages.Apply: "ValueError('no such socket')"}
    with pytest.raises(OrderFailedError, match="no such socket"):
        await working.handle.ask(messages.Apply())
    assert working.handle.is_alive
    assert await working.handle.ask(Count()) == []


async def test_a_worker_that_ends_fails_whatever_it_has_not_answered(working: Line) -> None:
    working.worker.dies_at = (Count,)
    working.worker.silent = (Retire,)
    outcomes = await asyncio.gather(
        working.handle.ask(Retire()), working.handle.ask(Count()), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes] == [f"worker {PID} has ended"] * 2
    assert (working.handle.is_alive, working.gone) == (False, 1)
    with pytest.raises(WorkerGoneError, match="has ended"):
        await working.handle.ask(Count())


async def test_a_worker_that_ends_before_it_is_ready_is_gone(line: Line) -> None:
    line.worker.attend(line.theirs)
    line.worker.say(messages.Hello(pid=PID, holds=1))
    line.worker.die()
    with pytest.raises(WorkerGoneError, match="has ended"):
        await line.handle.ready()


async def test_a_silent_worker_is_waited_for_once_and_again_when_it_has_spoken(working: Line) -> None:
    working.worker.silent = (Count,)
    working.handle.patience = 0.0
    with pytest.raises(WorkerGoneError, match="does not answer"):
        await working.handle.ask(Count())
    working.handle.patience = 3600.0
    with pytest.raises(WorkerGoneError, match="does not answer"):
        await working.handle.ask(Retire())  # at once
    assert working.worker.told(Retire) == []
    await line_is_read(working)
    assert await working.handle.ask(Retire()) == []


async def test_whoever_names_a_time_waits_for_a_silent_worker_too(working: Line) -> None:
    working.worker.silent = (Count,)
    with pytest.raises(WorkerGoneError):
        await working.handle.ask(Count(), seconds=0.0)
    assert await working.handle.ask(Retire(), seconds=20.0) == []


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x80", b"\x81\xa4type\xa8Tomorrow"])
async def test_what_cannot_be_understood_is_logged_and_its_files_are_closed(
    working: Line, message: bytes
) -> None:
    before = open_fds()
    with capture_logs() as lines:
        working.worker.say_raw(message, 0, 1)
        await line_is_read(working)
    assert [line["event"] for line in lines] == ["a worker cannot be understood"]
    assert open_fds() == before
    assert await working.handle.ask(Count()) == []


async def test_what_it_has_counted_is_kept_whether_it_was_asked_or_not(working: Line) -> None:
    working.worker.answers = {Count: [totals(5, killed=1)]}
    await working.handle.ask(Count())
    assert working.handle.counters == counted(5, killed=1)
    working.worker.say(totals(9, killed=3))  # the last words of one that ends
    working.worker.die()
    await until(lambda: working.gone)
    assert working.handle.counters == counted(9, killed=3)


async def test_whoever_hangs_up_leaves_the_worker_to_itself_and_is_not_told_of_its_end(working: Line) -> None:
    working.handle.leave()
    await until(lambda: working.worker.is_left)
    assert (working.gone, working.worker.orders) == (0, [])


async def test_a_worker_that_may_not_be_killed_is_told_of_in_one_line(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sockets  # looks for what is left open

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError(errno.EPERM, "it is another user's")

    ours, theirs = pair()
    handle = WorkerHandle(ours, PID, Callbacks(gone=lambda _: None, leaving=lambda _: None))
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(os, "kill", refuse)
        handle.kill()
    assert [(line["event"], line["pid"]) for line in logs] == [
        ("a worker cannot be ended: that takes CAP_KILL", PID)
    ]
    handle.leave()
    theirs.close()
