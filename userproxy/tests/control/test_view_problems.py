"""What of its problems the daemon shows first, and what netfilter carries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from userproxy.config import Config
from userproxy.control.view import View
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.messages import Totals
from userproxy.model.rows import SourceStatus
from userproxy.model.service import PoolName, Protocol, ServicePortName
from userproxy.model.snapshot import EMPTY, Problem
from userproxy.model.state import Frontend, NodeState, ToPods
from userproxy.netfilter.conntrack.flows import Flow
from userproxy.netfilter.conntrack.table import FlowTable

if TYPE_CHECKING:
    from collections.abc import Collection

    from userproxy.control.sides import Sides

WEB = ServicePortName("default", "web", "http")
FRONTEND = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
POD = Address("10.0.1.2", 8080)
AWAY = Problem("kubernetes", "ApiServerUnavailable", "https://api cannot be reached")
BAD = Problem("default/web", "BadObject", "Service spec.ports: is empty")


class Shown:
    """A view of a daemon without connections but those that netfilter carries."""

    def __init__(self, *flows: Flow) -> None:
        self.source = SourceStatus(kind="kubernetes", synced=True, stale_seconds=0.0)

        async def read(_frontends: Collection[Frontend]) -> list[Flow]:
            return list(flows)

        async def count() -> list[Totals]:
            return []

        table = FlowTable(read, lambda: 1000.0)
        table.observe(NodeState(captures={FRONTEND: ToPods((POD,))}, pools={FRONTEND: PoolName.of(WEB)}))
        sides = SimpleNamespace(
            workers=SimpleNamespace(count=count, serves={}),
            pod_health=SimpleNamespace(report=lambda: Totals(connections=0)),
            flows=table,
            crew=SimpleNamespace(count=count),
            kernel=SimpleNamespace(owned=True),
        )
        self.view = View(
            Config(node_name="host1"), cast("Sides", sides), Counters(), lambda: self.source, lambda: 1000.0
        )

    def fail(self, problem: Problem | None) -> None:
        """Let the source say why it cannot be followed."""
        self.source = msgspec.structs.replace(self.source, problem=str(problem or ""))


def flow(number: int, **changes: Any) -> Flow:  # noqa: ANN401 - as many types as there are fields
    fields: dict[str, Any] = {
        "id": number,
        "client": Address("10.0.1.3", 40000),
        "frontend": FRONTEND,
        "source": Address("10.0.1.3", 40000),
        "backend": POD,
        "state": "established",
        "started": None,
        "idle": 0.0,
        "bytes_up": 0,
        "bytes_down": 0,
        "counted": False,
    }
    return Flow(**fields | changes)


async def test_the_problems_of_single_objects_do_not_make_the_daemon_fail() -> None:
    shown = Shown()
    shown.view.observe(EMPTY, NodeState(), (BAD,))
    row = await shown.view.status()
    assert (row.problems, row.failing) == ((str(BAD),), False)


async def test_its_own_problem_and_that_of_its_source_come_first_and_once() -> None:
    shown = Shown()
    shown.view.observe(EMPTY, NodeState(), (BAD, AWAY))
    shown.fail(AWAY)
    shown.view.report("not everything could be applied: no memory")
    row = await shown.view.status()
    assert row.problems == ("not everything could be applied: no memory", str(AWAY), str(BAD))
    assert row.failing


@pytest.mark.parametrize("problem", [AWAY, None])
async def test_a_source_that_cannot_be_followed_is_told_though_nothing_was_carried_out(
    problem: Problem | None,
) -> None:
    shown = Shown()
    shown.fail(problem)
    row = await shown.view.status()
    assert (row.problems, row.failing) == (((str(AWAY),), True) if problem else ((), False))
