"""The daemon that wants the node: it waits until it could serve, and asks the one that has the node."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy import __version__
from userproxy.control import handover
from userproxy.control.handover import NOTHING, Handover
from userproxy.control.succession import wire
from userproxy.worker import rendezvous
from userproxy.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.control.announcer import Announcer
    from userproxy.control.node_lock import NodeLock

log = structlog.get_logger("userproxy")

_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)

_LOOK_SECONDS = 0.1

# An incumbent gives its workers this long to say what they have counted, and then some.
_PATIENCE_SECONDS = 20.0


class Heir:
    """Takes the node from whoever has it.

    Args:
        lock: of the node.
        announcer: tells whoever has started this daemon that it waits.
        name: of the incumbent's abstract socket.

    Attributes:
        is_to_renew: whether SIGHUP has come while it waited.
    """

    def __init__(self, lock: NodeLock, announcer: Announcer, name: str = wire.NAME) -> None:
        self.is_to_renew = False
        self._lock = lock
        self._announcer = announcer
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._incumbent: Channel | None = None
        self._answer: asyncio.Future[Handover | None] | None = None
        self._stopped = False
        self._said = ""

    async def come_to_the_node(self, is_ready: Callable[[], bool]) -> Handover | None:
        """Wait until the node is ours: nobody's, given up to us, or left.

        Args:
            is_ready: whether this daemon knows that it can serve. It asks only then; a node that nobody has
                is taken at once.

        Returns:
            What the one before has left, in this process or in another one; None if a signal came instead.
        """
        own = handover.take()
        if self._lock.try_acquire():
            return own
        handover.adopt(own, {})  # while this process was starting anew, another daemon came
        self._announcer.waiting()
        self._loop.add_signal_handler(signal.SIGHUP, self._renew)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return await self._take(is_ready)

    async def _take(self, is_ready: Callable[[], bool]) -> Handover | None:
        while not self._stopped:
            if self._lock.try_acquire():
                return NOTHING
            left = await self._ask() if is_ready() else None
            if left is not None:
                return left
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    def stop(self) -> None:
        """Want the node no more, if it is not ours yet."""
        self._stopped = True
        self._hang_up()

    def confirm(self) -> None:
        """Tell the one before that its time is over."""
        if self._incumbent is not None:
            self._incumbent.send(wire.encode(wire.Taken()))
            self._incumbent.close()
            self._incumbent = None

    def _renew(self) -> None:
        self.is_to_renew = True
        self.stop()

    async def _ask(self) -> Handover | None:
        visit = wire.connect(self._name)
        if visit is None:
            self._say("the daemon on this node hands nothing over: waiting until it has ended")
            return None
        if not rendezvous.is_ours(visit):
            visit.close()
            self._say(
                "somebody else's process poses as the daemon on this node: waiting until that has ended"
            )
            return None
        self._say("asking the daemon on this node to hand over")
        self._answer = self._loop.create_future()
        self._incumbent = Channel(visit, self._loop, self._on_message, self._hang_up)
        self._incumbent.send(wire.encode(wire.TakeOver(__version__)))
        impatience = self._loop.call_later(
            _PATIENCE_SECONDS, self._say, "the daemon on this node is slow to hand over"
        )
        try:
            left = await self._answer
        finally:
            impatience.cancel()
        if left is not None and not self._lock.try_acquire():  # a third one was faster
            handover.adopt(left, {})
            self._hang_up()
            return None
        if left is not None:
            # The node is ours from now on: a signal is for the daemon that begins, and waits for it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        return left

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        left = handover.decode(message)
        numbers = {flag: number for flag, number in left.listeners.items() if 0 <= number < len(fds)}
        for number in set(range(len(fds))) - set(numbers.values()):
            os.close(fds[number])
        given = msgspec.structs.replace(left, listeners={flag: fds[at] for flag, at in numbers.items()})
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(given)
        else:
            handover.adopt(given, {})

    def _hang_up(self) -> None:
        if self._incumbent is not None:
            self._incumbent.close()
            self._incumbent = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _say(self, line: str) -> None:
        """Log a line, unless it was the last one."""
        if line != self._said:
            self._said = line
            log.info(line)
