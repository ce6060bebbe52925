"""What conntrack tells, taken in by a loop that has other things to do."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

import pytest

from userproxy.model.carried import Counts, End, How
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack.events import Batch
from userproxy.netfilter.conntrack.heard import Heard, Told
from userproxy.tests.dataplane.steered.bench import Bench, address, flow
from userproxy.worker.steering import hearing as module
from userproxy.worker.steering.hearing import AT_ONCE, Hearing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.netfilter.conntrack.single import Conntrack

COUNTS = Counts(packets_up=5, bytes_up=400, packets_down=4, bytes_down=300)
LISTED = [Heard(Told.ANSWERED, flow(1, 10_000 + number), address(0)) for number in range(4 * AT_ONCE)]


class Kernel:
    """Conntrack: it lists connections, and tells of others when the test says so."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._events: list[Heard] = []

    def fileno(self) -> int:
        """Readable when there is something to read."""
        return self._theirs.fileno()

    def tell(self, *events: Heard) -> None:
        """This has happened."""
        self._events += events
        self._ours.send(b".")

    def read(self, most: int = 0) -> Batch:
        """What has."""
        del most
        events, self._events = self._events, []
        if events:
            self._theirs.recv(100)
        return Batch(events, lost=False)

    def close(self) -> None:
        """It is over."""
        self._ours.close()
        self._theirs.close()


async def test_packets_have_their_turn_while_a_long_list_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, bench = Kernel(), Bench(1)
    bench.port.listed = False
    monkeypatch.setattr(module, "EventSocket", lambda: kernel)
    monkeypatch.setattr(module, "listed", lambda: LISTED)
    first, last = LISTED[0].flow, LISTED[-1].flow
    sizes: list[int] = []
    over = asyncio.Event()

    def look() -> None:
        known = len(bench.decision)
        if known and not sizes:
            kernel.tell(Heard(Told.OVER, first, address(0)), Heard(Told.OVER, last, address(0)))
        if known:
            sizes.append(known)
            assert bench.port.listed is (known >= len(LISTED) - 2)
        if known >= len(LISTED) - 2:
            over.set()

    hearing = Hearing(asyncio.get_running_loop(), bench.decision, look)
    hearing.begin()
    await over.wait()
    hearing.close()
    assert sizes[0] == AT_ONCE
    assert bench.decision.confirmed() == {one.flow for one in LISTED} - {first, last}
    assert bench.counted() == [len(LISTED) - 2]


class Accountant:
    """Conntrack, that is asked what connections have carried: always the same.

    Attributes:
        asked: about which.
        number: of whichever has this key now.
    """

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.number = 7

    def counts(self, flows: Sequence[bytes]) -> list[tuple[int, Counts] | None]:
        """Of `Conntrack`."""
        self.asked += flows
        return [(self.number, COUNTS) for _ in flows]


@pytest.mark.parametrize(
    ("counting", "number", "carried"),
    [(True, 7, {"up": 400, "down": 300}), (True, 8, {}), (False, 7, {})],
    ids=["counted", "another one has its place", "not counted"],
)
async def test_what_connections_have_carried_is_asked_of_the_kernel_if_it_counts(
    monkeypatch: pytest.MonkeyPatch, counting: bool, number: int, carried: dict[str, int]
) -> None:
    kernel, bench, accountant = Kernel(), Bench(1), Accountant()
    accountant.number = number
    monkeypatch.setattr(module, "EventSocket", lambda: kernel)
    monkeypatch.setattr(module, "counting", lambda: counting)
    told = asyncio.Event()
    hearing = Hearing(
        asyncio.get_running_loop(), bench.decision, told.set, conntrack=cast("Conntrack", accountant)
    )
    bench.first(flow(1))
    end = End(How.CLIENT_FIRST, 7)
    kernel.tell(
        Heard(Told.ANSWERED, flow(1), address(0)),
        Heard(Told.OVER, flow(1), address(0), end),
        Heard(Told.OVER, flow(2), address(0), end),
    )
    await told.wait()
    hearing.close()
    assert bench.counters.connections_ended == {"client-fin": 1}
    assert bench.counters.relayed_bytes == carried
    assert accountant.asked == ([flow(1)] if counting else []), "the other one is not ours"


async def test_where_nothing_can_be_heard_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NetfilterError("Operation not permitted")

    monkeypatch.setattr(module, "EventSocket", refuse)
    bench = Bench(1)
    bench.port.listed = False
    hearing = Hearing(asyncio.get_running_loop(), bench.decision, lambda: None)
    hearing.begin()
    hearing.close()
    assert bench.port.listed


async def test_what_the_kernel_forgets_as_it_is_asked_it_tells_then(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, bench, accountant = Kernel(), Bench(1), Accountant()
    gone = Heard(Told.OVER, flow(1), address(0), End(How.RESET, 7, None, COUNTS))

    def forget(_flows: Sequence[bytes]) -> list[tuple[int, Counts] | None]:
        kernel.tell(gone)
        return [None]

    monkeypatch.setattr(module, "EventSocket", lambda: kernel)
    monkeypatch.setattr(module, "counting", lambda: True)
    monkeypatch.setattr(accountant, "counts", forget)
    told = asyncio.Event()
    hearing = Hearing(
        asyncio.get_running_loop(), bench.decision, told.set, conntrack=cast("Conntrack", accountant)
    )
    bench.first(flow(1))
    kernel.tell(
        Heard(Told.ANSWERED, flow(1), address(0)),
        Heard(Told.OVER, flow(1), address(0), End(How.RESET, 7)),
    )
    await told.wait()
    hearing.close()
    assert bench.counters.connections_ended == {"reset": 1}
    assert bench.counters.relayed_bytes == {"up": 400, "down": 300}
