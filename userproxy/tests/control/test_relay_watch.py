"""What is told and done while workers are silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.control.relay_watch import ENDED_AFTER, TOLD_AFTER, RelayWatch
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, ToListener, ToPods
from userproxy.tests.control.rig.node import POD1, tcp

if TYPE_CHECKING:
    from userproxy.tests.control.rig.node import ControlSide

LISTENER = Address("10.100.0.2", 10400)
TARGET = ToListener(LISTENER, ToPods((POD1,), masquerade=True))
DNS = Frontend(Protocol.UDP, Address("10.3.0.10", 53))
STATE = NodeState(captures={tcp("10.3.0.1:80"): TARGET, DNS: TARGET})


@pytest.fixture
def watch(side: ControlSide) -> RelayWatch:
    """Two workers that should beat."""
    side.workers.hearts.begin()
    side.workers.hearts.fullness = {0: "", 1: ""}
    return RelayWatch(side.sides)


async def looked(watch: RelayWatch, times: int = TOLD_AFTER, state: NodeState = STATE) -> list[str]:
    """What is told after so many looks."""
    for _ in range(times):
        await watch.look(state)
    return [str(problem) for problem in sorted(watch.problems)]


async def test_while_all_hearts_beat_there_is_nothing_to_tell(side: ControlSide, watch: RelayWatch) -> None:
    side.kernel.beating = {0, 1}
    assert await looked(watch) == []
    assert not await watch.look(STATE)
    assert side.journal == []


async def test_workers_that_should_not_beat_yet_are_not_missed(side: ControlSide) -> None:
    side.workers.hearts.begun = False
    assert await looked(RelayWatch(side.sides)) == []


async def test_one_beat_that_is_missed_is_no_problem(side: ControlSide, watch: RelayWatch) -> None:
    for beating in (set(), {0, 1}, set(), {0, 1}):
        side.kernel.beating = beating
        assert await looked(watch, times=1) == []


async def test_a_silent_worker_is_told_with_the_reason_and_udp_follows(
    side: ControlSide, watch: RelayWatch
) -> None:
    side.kernel.beating = {0}
    side.workers.hearts.fullness[1] = "as many connections as the limit allows"
    assert await looked(watch) == [
        "worker 1: new clients of UDP go straight to the pods: as many connections as the limit allows"
    ]
    assert side.journal == ["forget flows of 1"]
    side.kernel.beating = set()
    side.workers.hearts.fullness = {0: "", 1: None}
    assert await looked(watch) == [
        "worker 0: new connections go straight to the pods: its heartbeat does not reach the kernel",
        "worker 1: new connections go straight to the pods: it does not answer",
    ]
    side.kernel.beating = {0, 1}
    assert await watch.look(STATE)
    assert watch.problems == frozenset()
    assert side.journal == ["forget flows of 1"] * 2


async def test_a_worker_that_hangs_for_long_is_ended_and_one_that_answers_is_not(
    side: ControlSide, watch: RelayWatch
) -> None:
    side.workers.hearts.fullness = {0: "[Errno 24] Too many open files", 1: None}
    await looked(watch, times=ENDED_AFTER - 1)
    assert "end worker 1" not in side.journal
    await looked(watch, times=1)
    assert side.journal[-1] == "end worker 1"
    assert "end worker 0" not in side.journal


async def test_where_nobody_falls_open_no_flow_is_forgotten(side: ControlSide, watch: RelayWatch) -> None:
    await looked(watch, state=NodeState(captures={tcp("10.3.0.1:80"): TARGET}))
    assert side.journal == []
