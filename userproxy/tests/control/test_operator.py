"""What an operator asks for through the command line is applied, or refused with one line."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import structlog

from userproxy import logs
from userproxy.control import operator as operator_module
from userproxy.control.operator import Operator
from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.filter import ANY_PORT, ConnectionFilter
from userproxy.model.service import Path, PoolName
from userproxy.netfilter import NetfilterError
from userproxy.ops.admin.interface import Asker, OperatorError
from userproxy.ops.admin.messages import Killed
from userproxy.tests.control.rig.node import CART, POD1, POD2, WEB, count, counts, flow, service, snapshot
from userproxy.tests.waiting import until

if TYPE_CHECKING:
    from userproxy.tests.control.rig.node import ControlSide

pytestmark = pytest.mark.usefixtures("quiet")

EVERYTHING = ConnectionFilter()
ROOT = Asker(uid=0, pid=77, command="userproxy")


class Desk:
    """An operator at work, and a loop that reconciles when it is told to."""

    def __init__(self, side: ControlSide) -> None:
        self._side = side
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_busy = False
        self.operator = Operator(side.reconciler, side.sides, side.view, self._notify)

    def _notify(self) -> None:
        if not self.is_busy:
            task = asyncio.ensure_future(self._reconcile())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reconcile(self) -> None:
        with contextlib.suppress(NetfilterError):  # the loop's to report, and to try again
            await self._side.reconciler.reconcile()

    def deadlines(self) -> list[asyncio.Task[None]]:
        """What waits to end connections of drained pods."""
        return [task for task in asyncio.all_tasks() if "_end_after" in str(task.get_coro())]

    def picked(self) -> list[Address]:
        """Who may get the next connections of the Service."""
        return [backend.address for backend in self._side.workers.serves[PoolName.of(WEB)].backends]


@pytest.fixture
async def desk(side: ControlSide) -> Desk:
    """Two Services are served, each with the same two pods."""
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    return Desk(side)


async def test_to_kill_nothing_in_particular_is_refused(desk: Desk, side: ControlSide) -> None:
    with pytest.raises(OperatorError, match="kill what"):
        await desk.operator.kill(None, EVERYTHING, ROOT)
    assert "kill" not in " ".join(side.journal)


async def test_connections_are_killed_by_id_or_by_what_they_have(desk: Desk, side: ControlSide) -> None:
    assert await desk.operator.kill(["7-1", "7-2"], EVERYTHING, ROOT) == Killed(killed=2)
    assert await desk.operator.kill(None, ConnectionFilter(backend=POD1), ROOT) == Killed(killed=0)
    assert side.journal[-2:] == ["kill 7-1 7-2 of False", "kill all of True"]


async def test_to_kill_an_empty_list_kills_nothing(desk: Desk) -> None:
    assert await desk.operator.kill([], EVERYTHING, ROOT) == Killed(killed=0)


async def test_what_the_kernel_carries_is_ended_too_and_what_is_left_is_named(
    desk: Desk, side: ControlSide
) -> None:
    await side.apply(snapshot(service(path=Path.REDIRECT_TO_POD)))
    side.flows = [flow("10.3.0.1:80", POD1, 1), flow("10.3.0.1:80", POD2, 2)]
    side.kernel.silent = frozenset({2})
    kill, web = desk.operator.kill, ConnectionFilter(service=WEB)
    assert await kill(None, web, ROOT) == Killed(killed=1, carried=1, out_of_reach=1, left=("ct-2",))
    assert await kill(None, ConnectionFilter(backend=POD1), ROOT) == Killed(killed=1, carried=1)
    assert await kill(["7-1", "ct-1", "ct-9"], EVERYTHING, ROOT) == Killed(killed=4, carried=1)
    assert [line for line in side.journal if line.startswith("end")] == ["end 1 2", "end 1", "end 1"]
    assert sorted(side.crew.expected.values(), key=str) == [None, Reason.KILLED]
    await kill(["7-1"], EVERYTHING, ROOT)
    assert side.journal[-1].startswith("kill"), "conntrack is not read for ids of workers"


async def test_why_the_kernel_ended_nothing_is_told(desk: Desk, side: ControlSide) -> None:
    await side.apply(snapshot(service(path=Path.REDIRECT_TO_POD)))
    side.flows = [flow("10.3.0.1:80", POD1, 1)]
    side.kernel.errors["end"] = NetfilterError("no memory")
    answer = await desk.operator.kill(["ct-1"], EVERYTHING, ROOT)
    assert answer == Killed(killed=1, out_of_reach=1, left=("ct-1",), problem="no memory")


async def test_a_drain_is_carried_out_when_it_is_answered(desk: Desk, side: ControlSide) -> None:
    side.workers.parts = [counts(WEB, count(POD1, 3)), counts(CART, count(POD1, 1), count(POD2, 9))]
    assert await desk.operator.drain(POD1, ROOT, undo=False) == (2, 4)
    assert desk.picked() == [POD2]
    await desk.operator.drain(POD1, ROOT, undo=True)
    assert desk.picked() == [POD1, POD2]


async def test_what_is_left_at_a_drained_pod_is_ended_after_its_time(desk: Desk, side: ControlSide) -> None:
    await side.apply(snapshot(service(path=Path.REDIRECT_TO_POD)))
    side.flows = [flow("10.3.0.1:80", POD1, 1), flow("10.3.0.1:80", POD2, 2)]
    await desk.operator.drain(POD1, ROOT, undo=False, end_after=0.0)
    await until(lambda: "end 1" in side.journal)
    done = [line for line in side.journal if line.startswith(("kill", "end"))]
    assert done == ["kill all of True", "end 1"]


@pytest.mark.parametrize("undo", [True, False], ids=["undone", "drained without an end"])
async def test_the_end_of_a_drain_is_what_was_said_last(desk: Desk, side: ControlSide, undo: bool) -> None:
    await desk.operator.drain(POD1, ROOT, undo=False, end_after=3600.0)
    (deadline,) = desk.deadlines()
    await desk.operator.drain(POD1, ROOT, undo=undo)
    await asyncio.wait([deadline])
    assert deadline.cancelled()
    assert desk.deadlines() == []
    assert "kill" not in " ".join(side.journal)


async def test_the_log_says_who_asked(desk: Desk) -> None:
    with structlog.testing.capture_logs() as logs:
        await desk.operator.kill(["7-1"], EVERYTHING, ROOT)
        await desk.operator.drain(POD1, ROOT, undo=False)
        await desk.operator.drain(POD1, Asker(uid=1000, pid=0, command=""), undo=True)
    told = [(line["event"], line["uid"], line["pid"], line["command"]) for line in logs if "uid" in line]
    assert told == [
        ("an operator killed connections", 0, 77, "userproxy"),
        ("an operator drained a backend", 0, 77, "userproxy"),
        ("an operator brought a backend back", 1000, 0, ""),
    ]


async def test_a_pod_is_drained_with_all_of_its_ports_by_its_ip(desk: Desk) -> None:
    assert (await desk.operator.drain(Address(POD1.ip, ANY_PORT), ROOT, undo=False))[0] == 2
    assert desk.picked() == [POD2]


async def test_who_is_no_backend_cannot_be_drained(desk: Desk, side: ControlSide) -> None:
    with pytest.raises(OperatorError, match=r"no backend is at 10\.9\.9\.9: see `userproxy backends`"):
        await desk.operator.drain(Address("10.9.9.9", ANY_PORT), ROOT, undo=False)
    assert side.reconciler.drained.addresses == ()


async def test_a_removed_pod_whose_connections_live_on_is_no_backend_either(
    desk: Desk, side: ControlSide
) -> None:
    await side.apply(snapshot(service(), pods=[POD2]))
    side.workers.parts = [counts(WEB, count(POD1, 3, "removed"))]
    with pytest.raises(OperatorError, match="no backend"):
        await desk.operator.drain(POD1, ROOT, undo=False)


async def test_what_is_not_drained_cannot_be_brought_back_and_what_is_drained_is_told(desk: Desk) -> None:
    with pytest.raises(OperatorError, match="is not drained: drained is nothing"):
        await desk.operator.drain(POD1, ROOT, undo=True)
    await desk.operator.drain(POD1, ROOT, undo=False)
    with pytest.raises(OperatorError, match=r"10\.0\.1\.2 is not drained: drained is 10\.0\.1\.2:8080"):
        await desk.operator.drain(Address(POD1.ip, ANY_PORT), ROOT, undo=True)


async def test_a_drain_can_be_undone_after_its_pod_is_gone(desk: Desk, side: ControlSide) -> None:
    await desk.operator.drain(POD1, ROOT, undo=False)
    await side.apply(snapshot(service(), pods=[POD2]))
    assert await desk.operator.drain(POD1, ROOT, undo=True) == (0, 0)
    assert side.problems() == []


async def test_a_drain_that_fails_in_the_kernel_is_answered_and_stays_noted(
    desk: Desk, side: ControlSide
) -> None:
    await side.apply(snapshot(service(), pods=[POD1]))
    side.kernel.errors["apply"] = NetfilterError("busy")
    assert await desk.operator.drain(POD1, ROOT, undo=False) == (1, 0)
    side.kernel.errors.clear()
    assert await side.again() == ["serve default/web on 10400", "refuse 1"]


async def test_whoever_waits_too_long_is_told_that_it_is_noted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_module, "_PATIENCE_SECONDS", 0.0)
    desk.is_busy = True
    with pytest.raises(OperatorError, match="noted, but not applied yet"):
        await desk.operator.drain(POD1, ROOT, undo=False)


async def test_a_log_level_is_for_all_processes(
    desk: Desk, side: ControlSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs, "set_level", said.append)
    desk.operator.set_log_level("debug", ROOT)
    assert (said, side.journal[-1], side.crew.level) == (["debug"], "log level debug", "debug")
    with pytest.raises(OperatorError, match="no log level 'loud'"):
        desk.operator.set_log_level("loud", ROOT)
    assert side.crew.level == "debug"
