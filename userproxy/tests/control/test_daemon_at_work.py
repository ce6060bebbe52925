"""What the daemon does while it runs: applies, reports, repairs, and tells how it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from userproxy.control import daemon as daemon_module
from userproxy.model.service import Path, PoolName, TrafficPolicy
from userproxy.model.snapshot import EMPTY, Node
from userproxy.netfilter import NetfilterError
from userproxy.tests.control.rig.node import CART, WEB, ControlSide, config, service, snapshot, tcp
from userproxy.tests.control.rig.program import Program
from userproxy.tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet", "impatient")

BUSY = NetfilterError("the kernel is busy")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at from time to time is looked at all the time."""
    monkeypatch.setattr(daemon_module, "_REPAIR_SECONDS", 0.0)
    monkeypatch.setattr(daemon_module, "_USE_SECONDS", 0.0)


@pytest.fixture
def program(side: ControlSide) -> Program:
    return Program(side)


async def test_what_the_source_says_is_carried_out_and_its_problems_are_told_to_it(program: Program) -> None:
    ipv6 = service(WEB, "[fd00::1]:80")
    async with program.running():
        program.source.say(snapshot(ipv6, service(CART, "10.3.0.2:80")))
        await program.noted("capture 1")
        await until(lambda: program.source.told and program.source.told[-1])
    assert [problem.reason for problem in program.source.told[-1]] == ["AddressFamilyNotSupported"]


def test_that_clients_wait_for_endpoints_is_announced_by_the_source(program: Program) -> None:
    program.daemon.need_pods(PoolName("shop", "cart", "http", TrafficPolicy.LOCAL))
    (notice,) = program.source.announced
    assert (notice.about, notice.reason) == ("shop/cart:http", "NeedPods")


async def test_it_is_healthy_once_everything_has_been_carried_out(program: Program) -> None:
    async with program.running():
        before = program.daemon._health()
        assert (before.alive, before.healthy) == (True, False)
        program.source.say(snapshot(service()))
        await until(lambda: program.daemon._health().healthy)
        assert program.journal[-2:] == ["capture 1", "forget flows of 1"]


@pytest.mark.parametrize("eligible", [True, False])
async def test_a_node_that_is_about_to_go_is_not_eligible(program: Program, eligible: bool) -> None:
    async with program.running():
        program.source.say(msgspec.structs.replace(EMPTY, node=Node("host1", eligible=eligible)))
        await until(lambda: program.daemon._health().last_updated is not None)
        assert program.daemon._health().healthy is eligible


async def test_what_fails_is_a_problem_of_the_daemon_until_it_works(program: Program) -> None:
    side = program.side
    side.kernel.errors["apply"] = BUSY
    async with program.running():
        program.source.say(snapshot(service()))
        await until(lambda: side.counters.sync_failures)
        assert (await side.view.status()).problems == ("not everything could be applied: the kernel is busy",)
        assert program.daemon._health().pending_seconds is not None
        assert not program.daemon._health().healthy
        side.kernel.errors.clear()
        program.daemon.notify()
        await until(lambda: program.daemon._health().healthy)
        assert (await side.view.status()).problems == ()


async def test_a_worker_that_is_behind_is_a_problem_of_the_daemon_until_it_has_caught_up(
    program: Program,
) -> None:
    side = program.side
    async with program.running():
        program.source.say(snapshot(service()))
        await program.noted("capture 1")
        side.workers.lagging.add(WEB)
        program.source.say(snapshot(service(), pods=[]))
        await until(lambda: side.counters.sync_failures)
        (problem,) = (await side.view.status()).problems
        assert "a worker did not take over a change of default/web" in problem
        side.workers.lagging.clear()
        program.daemon.notify()
        await until(lambda: not side.workers.behind)


async def test_a_new_worker_that_fails_to_take_over_a_service_is_told_again_at_once(program: Program) -> None:
    async with program.running():
        program.source.say(snapshot(service()))
        await program.noted("capture 1")
        program.side.workers.miss(PoolName.of(WEB))
        await program.noted("serve default/web on 10400", times=2)
        await until(lambda: not program.side.workers.behind)


async def test_a_kernel_that_cannot_be_looked_at_is_told_and_looked_at_again(program: Program) -> None:
    program.side.kernel.errors["repair"] = BUSY
    with capture_logs() as lines:
        async with program.running():
            await until(lambda: program.side.kernel.repairs > 1)
            program.side.kernel.errors.clear()
            program.side.kernel.changes = ("chain nat-prerouting is gone",)
            await until(lambda: any("put back" in line["event"] for line in lines))


async def test_a_host_port_that_becomes_free_is_had_without_any_news_from_the_source(
    tmp_path: FilePath, sockets: Sockets
) -> None:
    program = Program(ControlSide(tmp_path, sockets, config("10400-10400")))
    program.side.workers.occupied = {10400}
    async with program.running():
        program.source.say(snapshot(service()))
        await until(program.side.problems)
        program.side.workers.occupied.clear()
        await program.noted("capture 1")


async def test_pods_are_checked_while_the_kernel_sends_connections_to_them(program: Program) -> None:
    side = program.side
    async with program.running():
        program.source.say(snapshot(service(path=Path.REDIRECT_TO_POD)))
        await program.noted("capture 1")
        assert PoolName.of(WEB) not in side.sides.pod_health.services
        side.kernel.in_use = {tcp("10.3.0.1:80")}
        await until(lambda: PoolName.of(WEB) in side.sides.pod_health.services)


async def test_changes_are_counted(program: Program) -> None:
    counters = program.side.counters
    async with program.running():
        program.source.say(snapshot(service(), service(CART, "10.3.0.2:80")))
        await program.noted("capture 2")
        program.source.say(snapshot(service()))
        await program.noted("uncapture 1")
        await until(lambda: sum(counters.sync_times["IPv4"].counts) >= 2)
    assert (counters.changed_services, counters.sync_failures) == ({"IPv4": 3}, 0)
    assert sum(counters.full_sync_times["IPv4"].counts) == 1, "the first one"
