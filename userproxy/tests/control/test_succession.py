"""One daemon takes the node from another one: both ends of it, in one process."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.control import handover
from userproxy.control.announcer import Announcer
from userproxy.control.handover import NOTHING, VARIABLE, Handover
from userproxy.control.node_lock import NodeLock
from userproxy.control.succession import wire
from userproxy.control.succession.heir import Heir
from userproxy.control.succession.incumbent import Incumbent
from userproxy.control.succession.tenure import Left
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.tests.waiting import until
from userproxy.worker import rendezvous
from userproxy.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from userproxy.tests.sockets import Sockets

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
COUNTED = Handover(past=Counters(connections_opened=100), workers={7: Counters(connections_opened=20)})


class Node:
    """A node with a daemon that has it.

    Attributes:
        lock: the daemon's.
        incumbent: the daemon, as others see it.
        asked_by: the versions of those who have asked.
        told: the signals that wait for it when it starts anew.
        willing: whether it hands over.
        listener: of its HTTP server.
    """

    def __init__(self, sockets: Sockets, directory: Path) -> None:
        self.lock = NodeLock(f"userproxy-test-{secrets.token_hex(8)}")
        self.name = f"userproxy-test-{secrets.token_hex(8)}"
        self.incumbent = Incumbent(self.name)
        self.incumbent.on_request = self._on_request
        self.asked_by: list[str] = []
        self.told: list[int] = []
        self.willing = True
        self.listener = socket.create_server(("127.0.0.1", 0))
        sockets.keep(self.listener)
        self._directory = directory
        self._locks = [self.lock]

    def heir(self) -> Heir:
        """Another daemon."""
        lock = NodeLock(self.lock_name)
        self._locks.append(lock)
        return Heir(lock, Announcer({}, self._directory / "ready"), self.name)

    @property
    def lock_name(self) -> str:
        """Of the abstract socket."""
        return self.lock._address[1:]

    def left(self, *, told_to_stop: bool = False, pids: tuple[int, ...] = ()) -> Left:
        """What the daemon leaves."""
        return Left(COUNTED, {"metrics-bind-address": self.listener}, pids, told_to_stop)

    async def hand_over(self, left: Left, *, is_kept: bool = False) -> bool:
        """The daemon has been asked, and gives everything up; whether it is to start anew."""
        await until(lambda: self.asked_by)
        self.lock.release()
        try:
            return await self.incumbent.hand_over(left, drain_seconds=30, is_kept=is_kept)
        finally:
            loop = asyncio.get_running_loop()
            if signal.SIGTERM in signal.sigpending():
                self.told.append(signal.sigwait([signal.SIGTERM]))
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def shut(self) -> None:
        """The end."""
        self.incumbent.close()
        for lock in self._locks:
            lock.release()

    def _on_request(self, version: str) -> bool:
        self.asked_by.append(version)
        return self.willing


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)


@pytest.fixture
async def node(sockets: Sockets, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(sockets, tmp_path)
    made.lock.acquire()
    made.incumbent.open()
    yield made
    made.shut()


def ready() -> bool:
    return True


async def test_a_node_that_nobody_has_is_taken_at_once_whether_it_could_serve_or_not(node: Node) -> None:
    node.lock.release()
    assert await node.heir().come_to_the_node(lambda: False) == NOTHING
    assert node.asked_by == []


async def test_the_heir_gets_what_was_counted_and_the_listeners_with_those_who_wait_there(node: Node) -> None:
    address = Address(*node.listener.getsockname())
    client = socket.create_connection((address.ip, address.port))
    client.sendall(b"are you well?")
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left()))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    assert (left.past, left.workers) == (COUNTED.past, COUNTED.workers)
    assert not NodeLock(node.lock_name).try_acquire()
    sock = handover.adopt(left, {"metrics-bind-address": address})["metrics-bind-address"]
    assert not giving.done(), "it waits until the other one serves"
    heir.confirm()
    assert await giving is False
    with sock, client:
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.recv(100) == b"are you well?"


async def test_it_asks_only_once_it_knows_that_it_could_serve(node: Node) -> None:
    looks = iter((False, False, True))
    heir = node.heir()
    coming = asyncio.ensure_future(heir.come_to_the_node(lambda: next(looks)))
    giving = asyncio.ensure_future(node.hand_over(node.left()))
    left = await coming
    assert list(looks) == []
    assert left is not None
    handover.adopt(left, {})
    heir.confirm()
    await giving


async def test_a_daemon_that_hands_nothing_over_is_waited_for(node: Node) -> None:
    node.incumbent.close()  # as one of an earlier version
    with capture_logs() as lines:
        coming = asyncio.ensure_future(node.heir().come_to_the_node(ready))
        await until(lambda: lines)
        assert not coming.done()
        node.lock.release()
        assert await coming == NOTHING
    assert ["hands nothing over" in line["event"] for line in lines] == [True]


async def test_a_daemon_that_is_about_to_stop_refuses_and_is_waited_for(node: Node) -> None:
    node.willing = False
    coming = asyncio.ensure_future(node.heir().come_to_the_node(ready))
    await until(lambda: len(node.asked_by) == 2)
    node.lock.release()
    assert await coming == NOTHING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_an_heir_that_a_signal_ends_while_it_waits_has_changed_nothing(
    node: Node, number: signal.Signals
) -> None:
    node.incumbent.close()
    heir = node.heir()
    coming = asyncio.ensure_future(heir.come_to_the_node(ready))
    await asyncio.sleep(0)
    signal.raise_signal(number)
    assert await coming is None
    assert heir.is_to_renew is (number == signal.SIGHUP)


async def test_a_signal_that_comes_when_the_node_is_ours_is_for_the_daemon_that_begins(node: Node) -> None:
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left()))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    handover.adopt(left, {})
    signal.raise_signal(signal.SIGHUP)
    assert signal.SIGHUP in signal.sigpending()
    assert signal.sigwait([signal.SIGHUP]) == signal.SIGHUP
    assert not heir.is_to_renew
    heir.confirm()
    assert await giving is False


async def test_one_that_would_be_started_again_stays_until_it_is_told_to_stop(node: Node) -> None:
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left(), is_kept=True))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    handover.adopt(left, {})
    heir.confirm()
    with capture_logs() as lines:
        await until(lambda: lines)  # it has nothing to stay for
    for _ in range(100):
        await asyncio.sleep(0)
    assert not giving.done()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    signal.raise_signal(signal.SIGTERM)
    assert await giving is False


async def test_but_not_for_ever(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userproxy.control.succession.incumbent._IDLE_SECONDS", 0.0)
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left(), is_kept=True))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    handover.adopt(left, {})
    heir.confirm()
    assert await giving is False


async def test_an_heir_that_dies_before_it_has_taken_over_is_no_heir_and_the_daemon_starts_anew(
    node: Node,
) -> None:
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left()))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    handover.adopt(left, {})
    heir.stop()  # as the end of its process does
    assert await giving is True
    own = handover.take()
    assert (own.past, own.workers, [*own.listeners]) == (
        COUNTED.past,
        COUNTED.workers,
        ["metrics-bind-address"],
    )
    handover.adopt(own, {})


async def test_who_was_told_to_stop_meanwhile_is_told_again_when_it_has_started_anew(node: Node) -> None:
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left(told_to_stop=True)))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    handover.adopt(left, {})
    heir.stop()
    assert await giving is True
    handover.adopt(handover.take(), {})
    assert node.told == [signal.SIGTERM]


@pytest.mark.parametrize("stays", [True, False])
async def test_a_visitor_that_says_nothing_keeps_nobody_out(node: Node, stays: bool) -> None:
    silent = wire.connect(node.name)
    assert silent is not None
    await until(lambda: node.incumbent._heir)
    if not stays:
        silent.close()
        await until(lambda: not node.incumbent._heir)
    heir = node.heir()
    giving = asyncio.ensure_future(node.hand_over(node.left()))
    left = await heir.come_to_the_node(ready)
    assert left is not None
    handover.adopt(left, {})
    silent.close()
    heir.confirm()
    assert await giving is False


@pytest.mark.parametrize("said", [b"", b"\xc1", b"\x01", wire.encode({"type": "of the future"})])
async def test_what_makes_no_sense_is_no_request(node: Node, said: bytes) -> None:
    visit = wire.connect(node.name)
    assert visit is not None
    over = asyncio.Event()
    channel = Channel(visit, asyncio.get_running_loop(), lambda *_: None, over.set)
    channel.send(said)
    channel.send(wire.encode(wire.Taken()))
    other = wire.connect(node.name)
    await over.wait()  # it is hung up on for another one
    assert other is not None
    other.close()
    assert node.asked_by == []


async def test_fields_of_another_version_are_no_obstacle(node: Node) -> None:
    visit = wire.connect(node.name)
    assert visit is not None
    channel = Channel(visit, asyncio.get_running_loop(), lambda *_: None, lambda: None)
    channel.send(wire.encode({"type": "take-over", "version": "9", "new": 1}))
    await until(lambda: node.asked_by == ["9"])
    channel.close()


async def test_a_name_that_somebody_else_has_is_told_and_the_daemon_goes_on(sockets: Sockets) -> None:
    name = f"userproxy-test-{secrets.token_hex(8)}"
    sockets.keep(rendezvous.listen_as(name))
    with capture_logs() as lines:
        Incumbent(name).open()
    assert ["no other daemon can take over" in line["event"] for line in lines] == [True]
