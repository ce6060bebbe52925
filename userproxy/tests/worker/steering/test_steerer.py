"""What the steering process does with its orders: a change costs what has changed, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Never, cast

import msgspec
import pytest

from userproxy.dataplane.steered.port import Port
from userproxy.model.address import Address
from userproxy.model.flow_key import frontend_key
from userproxy.model.service import Protocol
from userproxy.net.poller import Poller
from userproxy.netfilter.conntrack.events import Batch
from userproxy.netfilter.queue.packets import Answers
from userproxy.tests.worker.scripted import POD1, POD2
from userproxy.tests.worker.steering.scripted import FRONTEND, steer
from userproxy.worker.steering import hearing, steerer
from userproxy.worker.steering.hearing import Hearing
from userproxy.worker.steering.steerer import Steerer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from userproxy.netfilter.queue.packets import Packet
    from userproxy.netfilter.queue.queue import PacketQueue

OTHER, THIRD = (Address(f"10.3.241.{number}", 80) for number in (153, 154))
KEYS = [frontend_key(Protocol.TCP, each) for each in (FRONTEND, OTHER)]


class Kernel:
    """A queue without packets, and a conntrack that tells nothing."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        answers = Answers(30064)
        self.accept, self.drop = answers.accept, answers.drop

    def fileno(self) -> int:
        """Never readable."""
        return self._ours.fileno()

    def read(self) -> list[Packet]:
        """Of the queue."""
        return []

    def answer(self, answers: Sequence[bytes]) -> None:
        """Of the queue."""

    def close(self) -> None:
        """The end."""
        self._ours.close()
        self._theirs.close()


class Events(Kernel):
    """The events of conntrack."""

    def read(self, most: int = 0) -> Batch:  # type: ignore[override]
        """Nothing has happened."""
        del most
        return Batch([], lost=False)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel()
    monkeypatch.setattr(hearing, "EventSocket", Events)
    monkeypatch.setattr(hearing, "listed", list)
    monkeypatch.setattr(steerer, "Conntrack", Kernel)
    yield made
    made.close()


@pytest.fixture
async def made(kernel: Kernel) -> AsyncIterator[Steerer]:
    poller = Poller()
    one = Steerer(asyncio.get_running_loop(), poller, cast("PacketQueue", kernel), _nothing, lambda: None)
    yield one
    one.close()
    poller.shut()


def _nothing(_what: object) -> None:
    """For who is told nothing here."""


async def test_other_pods_are_no_reason_to_list_the_connections_there_are(
    made: Steerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[Hearing] = []

    def listed(by: Hearing) -> None:
        lists.append(by)

    monkeypatch.setattr(Hearing, "begin", listed)
    made.steer([steer()], [])
    assert len(lists) == 1
    made.steer([steer("web", POD1, POD2)], [])
    made.steer([steer("web", POD2)], [])
    assert len(lists) == 1
    made.steer([steer("cart", frontend=OTHER), steer("shop", frontend=THIRD)], [])
    assert len(lists) == 2, "one for all that are new"
    made.steer([msgspec.structs.replace(steer("cart"), frontends=(OTHER, FRONTEND))], [])
    assert len(lists) == 3


async def test_what_is_known_of_many_services_is_told_some_at_a_time(made: Steerer) -> None:
    """Nobody in the queue waits for all of them."""
    many = [steer(f"web-{number}", frontend=Address("10.3.242.1", 1 + number)) for number in range(250)]
    made.steer(many, [])
    for service in made.services.values():
        service.backends[0].latency = 0.1
    parts = list(made.report())
    assert [len(part) for part in parts] == [100, 100, 50]
    assert {count.pool for part in parts for count in part} == set(made.services)


class Whole(dict[bytes, Port]):
    """Frontends that nobody looks through, be it for a change or several times a second."""

    def __iter__(self) -> Never:
        raise AssertionError("that costs the more, the more Services there are")

    items = keys = values = __iter__


async def test_a_change_looks_at_no_other_service(made: Steerer) -> None:
    frontends = made.decision.frontends = Whole()
    made.steer([steer(), steer("cart", frontend=OTHER)], [])
    web, cart = (frontends[key] for key in KEYS)
    made.steer([steer("web", POD2, frontend=OTHER)], [])
    assert (frontends.get(KEYS[0]), frontends[KEYS[1]]) == (None, web)
    made.steer([], [cart.service.pool.name])
    assert frontends[KEYS[1]] is web, "that it had once is another one's by now"
    made.decision.expire()
    made.steer([], [web.service.pool.name])
    assert len(frontends) == 0
