"""The daemon that has the node: it listens for an heir, and gives the node to one that asks."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.control import handover
from userproxy.control.succession import wire
from userproxy.control.succession.outlasted import Outlasted
from userproxy.worker import rendezvous
from userproxy.worker.channel import MAX_FDS, Channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from userproxy.control.handover import Handover
    from userproxy.control.succession.tenure import Left

log = structlog.get_logger("userproxy")

# Whoever replaces a daemon by another one has told it to stop by then.
_IDLE_SECONDS = 300.0


class Incumbent:
    """Listens from `open` to `close`.

    Args:
        name: of the abstract socket.

    Attributes:
        on_request: called with the version of an heir that asks for the node; whether it is to have it.
    """

    def __init__(self, name: str = wire.NAME) -> None:
        self.on_request: Callable[[str], bool] = lambda _version: False
        self._name = name
        self._listener: socket.socket | None = None
        self._heir: Channel | None = None
        self._is_asked = False
        self._is_taken = False
        self._over = asyncio.Event()

    def open(self) -> None:
        """Listen from now on. Where that fails, the node cannot be handed over; nothing else suffers."""
        try:
            self._listener = rendezvous.listen_as(self._name)
        except OSError as error:
            log.warning("no other daemon can take over from this one", error=error.strerror)
            return
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._on_visitor)

    def close(self) -> None:
        """Listen no more, and hang up."""
        self._stop_listening()
        if self._heir is not None:
            self._heir.close()
            self._heir = None

    async def hand_over(self, left: Left, drain_seconds: float, *, is_kept: bool) -> bool:
        """Give everything to the heir that has asked, and stay until the workers in this container end.

        The kernel's rules, the admin socket and the node's lock have been given up.

        Args:
            left: what it gets.
            drain_seconds: how long connections may go on after SIGTERM.
            is_kept: this process is started again when it ends, and would take the node back. So it stays
                until it is told to stop; not for ever, since the heir may not do what it was to do.

        Returns:
            Whether this daemon is to start anew: the heir is gone before it had taken over.
        """
        loop = asyncio.get_running_loop()
        outlasted = Outlasted(left.pids)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, outlasted.end)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # there is nothing left to start anew
        if left.told_to_stop:
            outlasted.end()
        if not await self._give(left.handover, left.listeners):
            log.error("the other daemon is gone before it took over: starting anew")
            handover.leave(left.handover.past, left.handover.workers, left.listeners)
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
            if outlasted.forget():
                signal.raise_signal(signal.SIGTERM)  # it waits there for the next program
            return True
        for sock in left.listeners.values():
            sock.close()
        await outlasted.wait(drain_seconds, _IDLE_SECONDS if is_kept else 0.0)
        return False

    async def _give(self, left: Handover, listeners: Mapping[str, socket.socket]) -> bool:
        """Give everything to the heir that has asked.

        Args:
            left: what was counted.
            listeners: of HTTP servers, by flag. They stay open here.

        Returns:
            Whether it has taken over; if not, it is gone.
        """
        self._stop_listening()
        if self._heir is None:
            return False
        # The kernel passes so many at once; others are closed here and opened there.
        some = dict(list(listeners.items())[:MAX_FDS])
        numbers = {flag: number for number, flag in enumerate(some)}
        message = wire.encode(msgspec.structs.replace(left, listeners=numbers))
        try:
            self._heir.send(message, [sock.fileno() for sock in some.values()])
            await self._over.wait()
        except OSError as error:
            log.error("the node cannot be handed over", error=error.strerror)  # noqa: TRY400 - nothing to trace
        finally:
            self.close()
        return self._is_taken

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _on_visitor(self) -> None:
        if self._listener is None:
            return
        try:
            visitor, _ = self._listener.accept()
        except OSError:  # out of file descriptors, or the visitor is gone
            return
        if self._is_asked or not rendezvous.is_ours(visitor):
            visitor.close()
            return
        if self._heir is not None:  # one that has said nothing
            self._heir.close()
        self._heir = Channel(visitor, asyncio.get_running_loop(), self._on_message, self._on_closed)

    def _on_message(self, message: bytes, fds: list[int]) -> None:
        del fds  # an heir has none to give
        match wire.decode(message):
            case wire.TakeOver(version=version) if not self._is_asked:
                self._is_asked = self.on_request(version)
                if not self._is_asked and self._heir is not None:
                    self._heir.close()
                    self._heir = None
            case wire.Taken() if self._is_asked:
                self._is_taken = True
                self._over.set()

    def _on_closed(self) -> None:
        self._heir = None
        if self._is_asked:
            self._over.set()
