"""What conntrack tells, taken in by a loop that has other things to do."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from userproxy.netfilter.conntrack.events import Batch
from userproxy.netfilter.conntrack.heard import Heard, Told
from userproxy.tests.dataplane.steered.bench import Bench, address, flow
from userproxy.worker.steering import hearing as module
from userproxy.worker.steering.hearing import AT_ONCE, Hearing

if TYPE_CHECKING:
    import pytest

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

    def read(self) -> Batch:
        """What has."""
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
        if known >= len(LISTED) - 2:
            over.set()

    hearing = Hearing(asyncio.get_running_loop(), bench.decision, look)
    hearing.begin()
    await over.wait()
    hearing.close()
    assert sizes[0] == AT_ONCE
    assert bench.decision.confirmed() == {one.flow for one in LISTED} - {first, last}
    assert bench.counted() == [len(LISTED) - 2]
