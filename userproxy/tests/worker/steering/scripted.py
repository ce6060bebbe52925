"""Steering processes on the test's own loop: real channels, and a script at their other end."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

from userproxy.model import messages
from userproxy.model.address import Address
from userproxy.model.service import ServicePortName
from userproxy.model.state import Backend, Steer
from userproxy.tests.worker.scripted import ORDERS, POD1, ScriptedWorker
from userproxy.worker.channel import pair
from userproxy.worker.origin import Origin
from userproxy.worker.steering.crew import Crew

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

FRONTEND = Address("10.3.241.152", 80)
BEGIN = messages.BeginSteering(queue=30064, orphan_seconds=None, log_format="console", log_level="error")


class ScriptedSteering(ScriptedWorker):
    """A steering process that does as it is told.

    Args:
        pid: what it says that it is.
        queue: the socket of its queue, that it gives up when it is told to.

    Attributes:
        inode: of the socket of a queue that it was told to go on with; 0 if there was none.
    """

    def __init__(self, pid: int, queue: socket.socket | None = None) -> None:
        super().__init__(pid)
        self.inode = 0
        self._queue = queue

    @property
    def steers(self) -> dict[str, tuple[Address, ...]]:
        """By Service, the pods that it chooses from by now."""
        found: dict[str, tuple[Address, ...]] = {}
        for order in self.orders:
            if isinstance(order, messages.SteerPools):
                for name in order.stops:
                    del found[name.service]
                for each in order.steers:
                    found[each.name.service] = tuple(pod.address for pod in each.backends)
        return found

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        order: messages.Orders = ORDERS.decode(message)
        match order:
            case messages.ReadQueue() if fds:
                self.inode = os.fstat(fds[0]).st_ino
            case messages.YieldQueue() if self._queue is not None:
                self.say(messages.Queue(serial=order.serial), self._queue.fileno())
            case messages.Retire():
                asyncio.get_running_loop().call_soon(self.die)
        super()._on_message(message, fds)


class CrewSite:
    """A crew, and the steering processes that it finds or starts.

    Attributes:
        earlier: of an earlier control side; those that have ended are not found.
        started: those that were started, in that order.
        script: called with each new one before it says anything.
        error: why none can be started.
        has_bodies: each that starts, or is found, is a process of its own too, that can be seen and ended. It
            keeps the channel open, and says nothing.
        bodies: these.
    """

    def __init__(self) -> None:
        self.earlier: list[ScriptedSteering] = []
        self.started: list[ScriptedSteering] = []
        self.script: Callable[[ScriptedSteering], None] = lambda _: None
        self.error: OSError | None = None
        self.has_bodies = False
        self.bodies: list[subprocess.Popen[bytes]] = []
        self._crews: list[Crew] = []

    def crew(self) -> Crew:
        """A control side's."""
        made = Crew(BEGIN, Origin(self._start, self._find))
        self._crews.append(made)
        return made

    def shut(self) -> None:
        """The end."""
        for crew in self._crews:
            crew.leave()
        for process in (*self.earlier, *self.started):
            process.die()
        for body in self.bodies:
            if body.poll() is None:
                body.kill()
                body.wait()

    def _start(self) -> tuple[socket.socket, int]:
        if self.error is not None:
            raise self.error
        process = ScriptedSteering(101 + len(self.started))
        self.script(process)
        self.started.append(process)
        return self._connected(process)

    def _find(self) -> list[tuple[socket.socket, int]]:
        found, self.earlier = self.earlier, []
        return [self._connected(process) for process in found]

    def _connected(self, process: ScriptedSteering) -> tuple[socket.socket, int]:
        ours, theirs = pair()
        pid = 0
        if self.has_bodies:
            body = subprocess.Popen(["sleep", "1000"], pass_fds=[theirs.fileno()])  # noqa: S607 - as installed
            self.bodies.append(body)
            pid = body.pid
        process.attend(theirs)
        return ours, pid


def steer(name: str = "web", *pods: Address, frontend: Address = FRONTEND) -> Steer:
    """What is wanted of a Service port."""
    return Steer(
        service=ServicePortName("default", name),
        backends=tuple(Backend(pod) for pod in pods or (POD1,)),
        frontends=(frontend,),
    )
