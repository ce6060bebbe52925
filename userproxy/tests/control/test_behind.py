"""Pods that workers have found down are not behind a listener either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.control.behind import Behind
from userproxy.model.address import Address
from userproxy.model.messages import Outage
from userproxy.model.service import PoolName
from userproxy.model.state import NodeState, ToListener, ToPods
from userproxy.planner.actions import actions_for
from userproxy.tests.control.rig.node import POD1, POD2, WEB, ControlSide, config, service, snapshot, tcp

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets

LISTENER = Address("10.100.0.2", 10400)
POOL = PoolName.of(WEB)
FRONTEND, LOOPBACK, OTHER = tcp("10.3.0.1:80"), tcp("127.0.0.1:30080"), tcp("10.3.0.2:80")
BOTH = ToListener(LISTENER, ToPods((POD1, POD2), masquerade=True))
STATE = NodeState(
    captures={FRONTEND: BOTH, LOOPBACK: ToListener(LISTENER), OTHER: BOTH},
    frontends={POOL: (FRONTEND, LOOPBACK)},
)


def pods(state: NodeState) -> tuple[Address, ...]:
    target = state.captures[FRONTEND]
    assert isinstance(target, ToListener)
    assert target.behind is not None
    return target.behind.pods


def test_who_is_down_is_left_out_and_comes_back() -> None:
    behind = Behind()
    assert behind.restrict(STATE, {}) is STATE
    less = behind.restrict(STATE, {POOL: {POD1}})
    assert pods(less) == (POD2,)
    assert less.captures[LOOPBACK] == ToListener(LISTENER)
    assert less.captures[OTHER] == BOTH, "another Service's"
    assert list(actions_for(less, STATE).capture.put) == [FRONTEND]
    assert not actions_for(behind.restrict(STATE, {POOL: {POD1}}), less)
    assert dict(behind.restrict(STATE, {}).captures) == dict(STATE.captures)


def test_where_all_are_down_all_stay() -> None:
    assert Behind().restrict(STATE, {POOL: {POD1, POD2}}) is STATE


def test_what_is_unknown_makes_no_difference() -> None:
    gone = PoolName("default", "gone")
    assert Behind().restrict(STATE, {gone: {POD1}, POOL: {Address("10.0.9.9", 1)}}) is STATE


async def test_what_a_worker_tells_is_applied_with_the_next_reconcile(
    tmp_path: Path, sockets: Sockets
) -> None:
    side = ControlSide(tmp_path, sockets, config(fall_open=True))
    await side.apply(snapshot(service()))
    assert side.kernel.captures == {FRONTEND: BOTH}
    assert (side.kernel.workers, side.workers.hearts.begun) == (1, True)
    side.workers.outages.take(side.workers, Outage(pool=POOL, backends=(POD2,)))  # type: ignore[arg-type]
    assert await side.again() == ["capture 1"]
    assert side.kernel.captures == {FRONTEND: ToListener(LISTENER, ToPods((POD1,), masquerade=True))}
