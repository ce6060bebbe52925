"""A steering process takes over from another: in which order, and what becomes of them if it cannot."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from userproxy.model.messages import BeginSteering, ListPins, Queue, ReadQueue, Retire, SteerPools, YieldQueue
from userproxy.tests.dataplane.steered.bench import steer
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import ScriptedWorker
from userproxy.worker.channel import pair
from userproxy.worker.origin import Origin
from userproxy.worker.steering.crew import Crew

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from userproxy.model.messages import Order

pytestmark = pytest.mark.usefixtures("quiet")

BEGIN = BeginSteering(queue=7, orphan_seconds=None, log_format="console", log_level="error")
WEB = steer(range(2))


class Process(ScriptedWorker):
    """One that is ready when the test says so, and gives up a socket for its queue.

    Args:
        pid: what it says that it is.
        queue: a descriptor.
        history: takes note of what processes are told.
    """

    def __init__(self, pid: int, queue: int, history: list[tuple[int, type[Order]]]) -> None:
        super().__init__(pid)
        self._queue = queue
        self._history = history

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        had = len(self.orders)
        super()._on_message(message, fds)
        for order in self.orders[had:]:
            self._history.append((self.pid, type(order)))

    def say(self, part: object, *fds: int) -> None:
        """Anything; before it has given up its queue, that too."""
        if self.orders and isinstance(self.orders[-1], YieldQueue):
            super().say(Queue(serial=self.orders[-1].serial), self._queue)
        super().say(part, *fds)  # type: ignore[arg-type]


EARLIER, NEXT = 1, 2


class Node:
    """A node with a steering process of an earlier control side."""

    def __init__(self) -> None:
        self.history: list[tuple[int, type[Order]]] = []
        self._queue = os.open(os.devnull, os.O_RDONLY)
        self.earlier = Process(EARLIER, self._queue, self.history)
        self.next = Process(NEXT, self._queue, self.history)
        self.error: OSError | None = None
        self._connections: list[socket.socket] = []
        self.crew = Crew(BEGIN, Origin(self._start, lambda: [self._connected(self.earlier)]))

    def _start(self) -> tuple[socket.socket, int]:
        if self.error is not None:
            raise self.error
        assert self.history == [], "packets wait while a process starts"
        return self._connected(self.next)

    def _connected(self, process: Process) -> tuple[socket.socket, int]:
        ours, theirs = pair()
        process.attend(theirs)
        self._connections.append(ours)
        return ours, 0

    async def shut(self) -> None:
        """The end."""
        self.crew.leave()
        for process in (self.earlier, self.next):
            process.die()
        os.close(self._queue)
        await until(lambda: all(each.fileno() < 0 for each in self._connections))


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    yield made
    await made.shut()


async def test_the_next_one_knows_everything_before_the_earlier_one_gives_up_its_queue(node: Node) -> None:
    await node.crew.steer({WEB.name: WEB})
    await until(lambda: (EARLIER, Retire) in node.history)
    told = [one for one in node.history if one[1] is not Retire]
    known = [(EARLIER, ListPins), (NEXT, BeginSteering), (NEXT, SteerPools)]
    assert told == [*known, (EARLIER, YieldQueue), (NEXT, ReadQueue)]


async def test_the_earlier_one_goes_on_if_no_other_can_be_started(node: Node) -> None:
    node.error = OSError(errno.EAGAIN, "no more processes")
    await node.crew.steer({WEB.name: WEB})
    await until(lambda: node.earlier.is_left)
    assert node.history == []


async def test_one_that_nobody_needs_any_more_goes(node: Node) -> None:
    await node.crew.steer({})
    await until(lambda: node.history)
    assert node.history == [(EARLIER, Retire)]
