"""What a steering process knows reaches its successor."""

from __future__ import annotations

import asyncio
import errno

import msgspec

from userproxy.backends.service import LiveService
from userproxy.model import messages
from userproxy.model.heritage import Judgement
from userproxy.model.service import PoolName
from userproxy.tests.dataplane.steered.bench import address, steer
from userproxy.tests.waiting import until
from userproxy.worker.steering.legacy import Legacy, as_orders
from userproxy.worker.steering.memory import IN_ONE_MESSAGE, Memory

WEB = msgspec.structs.replace(steer(range(4)), affinity=100.0)


class Process:
    """A process's memory, and what it has told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[messages.Parts] = []
        self.service = LiveService(WEB, draw=lambda: 0.5, clock=lambda: self.now)
        services: dict[PoolName, LiveService] = {WEB.name: self.service}
        loop = asyncio.get_running_loop()
        self.memory = Memory(loop, services, lambda: self.now, self.told.append)
        self.memory.watch(self.service)

    def clients(self, first: int, count: int) -> None:
        """So many have a connection each."""
        for number in range(first, first + count):
            self.service.pick(f"10.1.{number // 256}.{number % 256}", ())

    def eject(self) -> None:
        """The first of its backends."""
        for _ in range(3):
            self.service.dial_failed(self.service.backends[0], errno.ECONNREFUSED)

    @property
    def pins(self) -> list[str]:
        """The clients that were told of."""
        return [pin.client for part in self.told if isinstance(part, messages.Pins) for pin in part.pins]

    @property
    def judged(self) -> list[tuple[Judgement, ...]]:
        """What was told of backends."""
        return [part.backends for part in self.told if isinstance(part, messages.Judgements)]


async def test_what_is_new_is_told_unasked_and_once() -> None:
    process = Process()
    process.clients(0, 2)
    process.eject()
    await until(lambda: process.judged)
    assert sorted(process.pins) == ["10.1.0.0", "10.1.0.1"]
    ((judgement,),) = process.judged
    assert (judgement.backend, judgement.until) == (address(0), 5.0)
    process.told.clear()
    process.memory.tell_last(7)
    assert process.pins == []
    process.memory.close()


async def test_that_a_backend_is_back_is_told_too() -> None:
    process = Process()
    process.eject()
    await until(lambda: process.judged)
    process.now += 1000.0
    process.memory.learn(messages.LearnJudgements(pool=WEB.name, backends=(Judgement(address(0)),)))
    process.memory.tell_last(7)
    assert process.judged[1:] == [(Judgement(address(0)),)]
    process.memory.tell_last(8)
    assert len(process.judged) == 2
    process.memory.close()


async def test_all_is_told_in_messages_of_a_bounded_size() -> None:
    process = Process()
    process.clients(0, 2 * IN_ONE_MESSAGE + 1)
    process.memory.tell_all(3)
    sizes = [len(part.pins) for part in process.told if isinstance(part, messages.Pins)]
    assert sizes == [IN_ONE_MESSAGE, IN_ONE_MESSAGE, 1]
    assert {part.serial for part in process.told} == {3}
    process.memory.close()


async def test_a_successor_goes_on_with_it_also_through_the_control_side() -> None:
    process, now = Process(), [500.0]
    process.clients(0, 40)
    process.eject()
    process.memory.tell_all(3)
    direct, later = Process(), Process()
    for order in as_orders(process.told):
        direct.memory.learn(order)
    legacy = Legacy(lambda: now[0])
    legacy.take(process.told)
    now[0] += 2.0
    for order in legacy.orders():
        later.memory.learn(order)
    process.now = direct.now
    pods = {client: _pod(process, client) for client in process.pins}
    assert len(set(pods.values())) > 1
    for each in (direct, later):
        assert {client: _pod(each, client) for client in pods} == pods
        assert each.service.backends[0].ejected
    assert later.service.backends[0].outlier.until == direct.service.backends[0].outlier.until - 2.0
    for each in (process, direct, later):
        each.memory.close()


async def test_what_is_told_of_a_pool_that_is_not_steered_is_nothing_here() -> None:
    process, other = Process(), PoolName("default", "other")
    process.memory.learn(messages.LearnPins(pool=other, pins=()))
    process.memory.tell_all(1)
    assert process.told == []
    process.memory.close()


def _pod(process: Process, client: str) -> str:
    pinned = process.service.affinity.backend_of(client, process.now, 100.0)
    return "" if pinned is None else pinned.ip
