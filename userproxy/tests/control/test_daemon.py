"""How the daemon starts, stops and starts anew, and what it leaves where that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from userproxy.config import ConfigError
from userproxy.control import handover
from userproxy.control.daemon import HEALTHZ_FLAG, StartError
from userproxy.control.handover import Handover
from userproxy.control.stopping import StopError
from userproxy.control.succession import wire
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.state import NodeState, Refuse, Serve, ToListener
from userproxy.netfilter import NetfilterError
from userproxy.tests.control.rig.node import WEB, ControlSide, config, service, snapshot, tcp
from userproxy.tests.control.rig.program import Program
from userproxy.tests.waiting import until
from userproxy.worker.handle import WorkerGoneError

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")

LEFT = NodeState(captures={tcp("10.3.0.1:80"): ToListener(Address("10.100.0.2", 10400))})
BUSY = NetfilterError("the kernel refuses our rules: Device or resource busy")


@pytest.fixture
def program(side: ControlSide) -> Program:
    return Program(side)


async def test_workers_that_do_not_start_are_one_line_and_the_kernel_has_heard_of_nothing(
    program: Program,
) -> None:
    for error in (WorkerGoneError("worker 7 has ended"), OSError(12, "Cannot allocate memory")):
        program.journal.clear()
        program.side.workers.start_error = error
        with pytest.raises(StartError, match="no worker can be started"):
            await program.run()
        assert program.journal == ["workers start"]


async def test_a_kernel_that_refuses_our_rules_ends_it_and_the_workers_are_left_as_after_a_crash(
    program: Program,
) -> None:
    program.side.kernel.errors["start"] = BUSY
    with pytest.raises(NetfilterError):
        await program.run()
    assert program.journal == ["workers start", "kernel start fails", "leave the workers"]


async def test_what_an_earlier_daemon_left_works_on_until_the_source_has_spoken(program: Program) -> None:
    program.side.kernel.adopted = LEFT
    async with program.running():
        program.daemon.notify()
        await until(lambda: program.source.told)  # at the end of each reconcile
        assert program.journal == ["workers start", "kernel start"]
        assert program.side.reconciler.actual.captures == LEFT.captures


@pytest.mark.parametrize("is_served", [True, False])
async def test_workers_beat_at_once_if_they_have_all_listeners_that_the_rules_lead_to(
    program: Program, is_served: bool
) -> None:
    program.side.kernel.adopted = LEFT
    if is_served:
        listener = Address("10.100.0.2", 10400)
        await program.side.workers.serve([Serve(service=WEB, listener=listener)])
        program.journal.clear()
    async with program.running():
        program.daemon.notify()
        await until(lambda: program.source.told)
        assert program.side.workers.hearts.begun is is_served, "or else new clients would be refused"
        program.source.say(snapshot(service()))
        await until(lambda: program.side.workers.hearts.begun)


async def test_sigterm_refuses_new_clients_drains_and_leaves_no_trace(program: Program) -> None:
    async with program.running() as task:
        program.source.say(snapshot(service()))
        await program.noted("capture 1")
        signal.raise_signal(signal.SIGTERM)
        assert await task is False
    assert program.journal[-3:] == ["refuse 1", "drain for 30 s", "remove every trace"]
    assert program.side.kernel.captures == {tcp("10.3.0.1:80"): Refuse()}


async def test_it_stops_before_any_source_has_spoken_and_refuses_what_it_has_adopted(
    program: Program,
) -> None:
    program.side.kernel.adopted = LEFT
    async with program.running() as task:
        signal.raise_signal(signal.SIGINT)
        assert await task is False
    assert program.journal[2:] == ["refuse 1", "drain for 30 s", "remove every trace"]


async def test_connections_get_their_time_although_netfilter_fails_to_refuse_new_ones(
    program: Program,
) -> None:
    program.side.kernel.adopted = LEFT
    program.side.kernel.errors["apply"] = BUSY
    with capture_logs() as lines:
        async with program.running() as task:
            signal.raise_signal(signal.SIGTERM)
            assert await task is False
    assert program.journal[2:] == ["refuse 1 fails", "drain for 30 s", "remove every trace"]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "new clients are not refused while stopping"
    ]


async def test_what_cannot_be_removed_is_told_with_the_remedy_after_the_workers_have_ended(
    program: Program,
) -> None:
    program.side.kernel.adopted = LEFT
    program.side.kernel.errors = {"apply": BUSY, "remove": BUSY}
    async with program.running() as task:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopError, match="run `userproxy cleanup` to remove what is left"):
            await task
    assert program.journal[2:] == ["refuse 1 fails", "drain for 30 s", "remove every trace fails"]


async def test_a_second_signal_gives_connections_no_more_time(program: Program) -> None:
    program.side.workers.drained = asyncio.get_running_loop().create_future()
    async with program.running() as task:
        signal.raise_signal(signal.SIGTERM)
        await program.noted("drain for 30 s")
        assert not task.done()
        signal.raise_signal(signal.SIGTERM)
        assert await task is False
    assert program.journal[-3:] == ["drain for 30 s", "end_drain", "remove every trace"]


async def test_sighup_leaves_the_workers_and_what_was_counted_and_touches_no_rule(program: Program) -> None:
    program.side.kernel.adopted = LEFT
    program.side.counters.sync_failures = 3
    program.side.workers.past = Counters(connections_opened=100)
    program.side.workers.living = {7: Counters(connections_opened=20)}
    program.side.crew.past_counters = Counters(failed_dials={"refused": 1})
    program.side.crew.living_counters = {9: Counters(failed_dials={"refused": 4})}
    program.side.sides.pod_health.counters.health_checks["passed"] += 2
    async with program.running() as task:
        signal.raise_signal(signal.SIGHUP)
        assert await task is True
    assert program.journal[2:] == ["leave the workers"]
    left = handover.take()
    assert left.workers == program.side.workers.living
    assert (left.past.connections_opened, left.past.sync_failures) == (100, 3)
    assert left.past.health_checks == {"passed": 2}
    assert left.past.failed_dials == {"refused": 5}


async def test_sighup_leaves_the_socket_that_owns_the_rules(program: Program, sockets: Sockets) -> None:
    program.side.kernel.owner = cast("socket.socket", sockets.keep(socket.socket(socket.AF_UNIX)))
    inode = os.fstat(program.side.kernel.owner.fileno()).st_ino
    async with program.running() as task:
        signal.raise_signal(signal.SIGHUP)
        assert await task is True
    program.side.kernel.owner.close()  # as execve(2) does
    left = handover.take()
    owner = handover.take_rules(left)
    assert owner is not None
    with owner:
        assert os.fstat(owner.fileno()).st_ino == inode
        assert not owner.get_inheritable()
    assert handover.take_rules(left) is None, "it is taken once"
    assert handover.adopt(left, {}) == {}


async def test_a_configuration_that_is_wrong_is_told_and_nothing_happens(program: Program) -> None:
    program.wrong = ConfigError("config.yaml: workers: 0 is not `auto` or a number from 1 to 256")
    with capture_logs() as lines:
        async with program.running() as task:
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: any("not started anew" in line["event"] for line in lines))
            assert not task.done()
            program.source.say(snapshot(service()))
            await program.noted("capture 1")


@pytest.mark.parametrize("signals", [(signal.SIGHUP, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)])
async def test_who_is_told_to_stop_does_not_start_anew(
    program: Program, signals: tuple[signal.Signals, signal.Signals]
) -> None:
    async with program.running() as task:
        for number in signals:
            signal.raise_signal(number)
        assert await task is False
    assert program.journal[-1] == "remove every trace"
    assert "leave the workers" not in program.journal


async def test_the_next_daemon_tells_its_workers_what_they_had_counted(side: ControlSide) -> None:
    known = {7: Counters(connections_opened=20)}
    async with Program(side, Handover(workers=known)).running():
        assert side.workers.known == known


async def test_a_probe_that_comes_while_it_starts_anew_is_answered_by_the_next_daemon(
    tmp_path: Path, sockets: Sockets
) -> None:
    left = socket.create_server(("127.0.0.1", 0))
    address = Address(*left.getsockname())
    reader, writer = await asyncio.open_connection(address.ip, address.port)
    writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
    side = ControlSide(tmp_path, sockets, config(healthz_bind_address=str(address)))
    program = Program(side, Handover(listeners={HEALTHZ_FLAG: left.detach()}))
    async with program.running() as task:
        assert (await reader.read()).startswith(b"HTTP/1.0 200 OK")
        signal.raise_signal(signal.SIGHUP)
        assert await task is True
    writer.close()
    await writer.wait_closed()
    program.daemon._listeners[HEALTHZ_FLAG].close()  # as execve(2) does
    heir = handover.adopt(handover.take(), {HEALTHZ_FLAG: address})
    socket.create_connection((address.ip, address.port)).close()
    heir[HEALTHZ_FLAG].close()


async def test_an_heir_that_asks_gets_the_node_and_no_rule_is_touched(program: Program) -> None:
    program.side.kernel.adopted = LEFT
    program.side.counters.sync_failures = 3
    program.side.workers.living = {7: Counters(connections_opened=20)}
    async with program.running() as task:
        heir = await program.asked_to_hand_over()
        assert await task is False
    assert program.journal[2:] == ["leave the workers"]
    left = program.daemon.left
    assert left is not None
    assert left.handover.workers == program.side.workers.living
    assert left.handover.past.sync_failures == 3
    assert (left.pids, left.told_to_stop) == ((7, 8), False)
    heir.close()
    program.incumbent.close()


async def test_an_heir_gets_the_socket_that_owns_the_rules_however_many_others_there_are(
    program: Program, sockets: Sockets
) -> None:
    owner = cast("socket.socket", sockets.keep(socket.socket(socket.AF_UNIX)))
    program.side.kernel.owner = owner
    async with program.running() as task:
        heir = await program.asked_to_hand_over()
        assert await task is False
    assert program.daemon.left is not None
    assert next(iter(program.daemon.left.listeners.items())) == (handover.RULES, owner)
    heir.close()
    program.incumbent.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_after_that_changes_nothing_for_the_workers(
    program: Program, number: signal.Signals
) -> None:
    async with program.running() as task:
        heir = await program.asked_to_hand_over()
        signal.raise_signal(number)
        assert await task is False
    assert program.journal[2:] == ["leave the workers"]
    assert program.daemon.left is not None
    assert program.daemon.left.told_to_stop is (number == signal.SIGTERM)
    heir.close()
    program.incumbent.close()


async def test_a_daemon_that_is_about_to_stop_does_not_hand_over(program: Program) -> None:
    program.side.workers.drained = asyncio.get_running_loop().create_future()
    async with program.running() as task:
        signal.raise_signal(signal.SIGTERM)
        await program.noted("drain for 30 s")
        assert wire.connect(program.incumbent_name) is None
        program.side.workers.drained.set_result(0)
        assert await task is False
    assert program.daemon.left is None


async def test_the_daemon_before_it_is_needed_until_workers_and_rules_are_there(program: Program) -> None:
    program.side.kernel.errors["start"] = BUSY
    with pytest.raises(NetfilterError):
        await program.run()
    assert not program.is_confirmed
    program.side.kernel.errors.clear()
    async with program.running():
        await until(lambda: program.is_confirmed)


async def test_it_is_ready_once_what_the_source_says_is_in_effect(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(program.daemon._announcer, "started", lambda: said.append([*program.journal]))
    async with program.running():
        await until(lambda: program.is_confirmed)
        assert said == []
        program.source.say(snapshot(service()))
        await until(lambda: said)
    assert "capture 1" in said[0]


async def test_a_source_that_is_silent_does_not_keep_whoever_waits_for_the_daemon(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bool] = []
    monkeypatch.setattr("userproxy.control.daemon._SOURCE_SECONDS", 0.0)
    monkeypatch.setattr(program.daemon._announcer, "started", lambda: said.append(True))
    async with program.running():
        await until(lambda: said)
