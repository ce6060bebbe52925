"""An epoll of our own, nested in the event loop, for the sockets that carry clients' bytes.

The loop watches one file descriptor: this epoll. A socket is registered once and costs one `epoll_ctl` for
each real change of interest, where the loop's own readers cost a handle object and an `epoll_ctl` at every
start and stop. Readiness is level-triggered: a handler may do a bounded piece of work and is called again.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog

if TYPE_CHECKING:
    import asyncio
    from _socket import socket
    from collections.abc import Callable

log = structlog.get_logger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
ERROR = select.EPOLLERR
HANGUP = select.EPOLLHUP
PEER_FINISHED = select.EPOLLRDHUP
URGENT = select.EPOLLPRI


class Ready(Protocol):
    """Who is told that a socket is ready."""

    def on_ready(self, mask: int) -> None:
        """The socket is ready for what the mask says. May be called in vain."""
        ...

    def abort(self) -> None:
        """`on_ready` raised: give up everything that belongs to this socket, and close it."""
        ...


class Watched(Protocol):
    """Who is looked at from time to time."""

    def abort(self) -> None:
        """Looking at it raised: give up everything that belongs to it, and leave."""
        ...


M = TypeVar("M", bound=Watched)

# After so many rounds the loop gets its turn again: signals, the admin socket, the control side.
_ROUNDS = 8
_EVENTS_A_ROUND = 256


class Poller:
    """Registers sockets with their handlers, and calls these when the kernel says so.

    Args:
        clock: monotonic time, in seconds.

    Attributes:
        clock: for whoever may be called outside of a round, or measures within one.
        now: the time at which the latest round began; within a round, read it instead of the clock.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._closing: list[socket] = []
        self._dispatching = False
        self._paused = False
        self._detach: Callable[[], object] | None = None
        self.clock = clock
        self.now = clock()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be driven by the event loop from now on."""
        loop.add_reader(self._epoll.fileno(), self.dispatch)
        self._detach = lambda: loop.remove_reader(self._epoll.fileno())

    def nest(self, inner: Poller) -> None:
        """Drive another poller. `pause` and `resume` then switch all of its sockets with one system call."""
        self.register(inner._epoll.fileno(), READ, inner)

    def pause(self, inner: Poller) -> None:
        """Leave the sockets of a nested poller alone, from the next call of a handler on."""
        inner._paused = True
        self.modify(inner._epoll.fileno(), 0)

    def resume(self, inner: Poller) -> None:
        """Look after the sockets of a nested poller again."""
        inner._paused = False
        self.modify(inner._epoll.fileno(), READ)

    def register(self, fd: int, interest: int, owner: Ready) -> None:
        """Tell the owner whenever the interest (or an error, or a hang-up) is there."""
        self._epoll.register(fd, interest)
        self._handlers[fd] = owner.on_ready

    def modify(self, fd: int, interest: int) -> None:
        """Change the interest. With 0, errors and hang-ups are still told."""
        self._epoll.modify(fd, interest)

    def hand_over(self, fd: int, interest: int, owner: Ready) -> None:
        """Change the owner of a registered socket, and the interest."""
        self._handlers[fd] = owner.on_ready
        self._epoll.modify(fd, interest)

    def unregister(self, fd: int) -> None:
        """Leave a registered socket alone, without closing it."""
        self._handlers.pop(fd, None)
        self._epoll.unregister(fd)

    def close(self, sock: socket) -> None:
        """Close a socket, registered or not; its handler is not called again.

        The kernel forgets its registration with the last descriptor of it. Of a socket that another process
        has too, that is not this one: `unregister` it first.

        Within a round the number stays taken until the round ends: events of the same round that were meant
        for this socket must not reach another one that got its number.
        """
        self._handlers.pop(sock.fileno(), None)
        if self._dispatching:
            self._closing.append(sock)
        else:
            sock.close()

    def dispatch(self) -> None:
        """Serve what is ready now, for a bounded number of rounds."""
        for _ in range(_ROUNDS):
            if not self._round():
                break

    def _round(self) -> bool:
        ready = self._epoll.poll(0, _EVENTS_A_ROUND)
        if not ready:
            return False
        self.now = self.clock()
        handlers = self._handlers
        self._dispatching = True
        try:
            for fd, mask in ready:
                handler = handlers.get(fd)
                if handler is None or self._paused:
                    continue
                try:
                    handler(mask)
                except Exception:
                    # One connection's failure must not become every connection's.
                    log.exception("a connection is given up: handling its socket failed", fd=fd)
                    _owner(handler).abort()
        finally:
            self._dispatching = False
            if self._closing:
                self._close_all()
        return True

    def on_ready(self, _mask: int) -> None:
        """Nested in another poller: one round within each round of that one."""
        self._round()

    def abort(self) -> None:
        """Nested in another poller: a round failed, the next one will be tried."""

    def _close_all(self) -> None:
        for sock in self._closing:
            sock.close()
        self._closing.clear()

    def shut(self) -> None:
        """Stop: no handler is called again. The sockets stay open."""
        if self._detach is not None:
            self._detach()
            self._detach = None
        self._handlers.clear()
        self._epoll.close()


def _owner(handler: Callable[[int], None]) -> Ready:
    owner: Any = handler.__self__  # type: ignore[attr-defined]  # a bound method, see `register`
    ready: Ready = owner
    return ready


class Watch(Generic[M]):
    """Looks at its members at every tick. There is a tick only while there are members.

    Most connections get what they wait for long before a timer of their own would tell, so that to join and
    to leave must cost next to nothing: an entry in a dictionary.

    Args:
        loop: that drives it.
        period: seconds between two ticks.
        look: called with each member at each tick.

    Attributes:
        members: by number; leave with `members.pop(number, None)`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float, look: Callable[[M], None]) -> None:
        self.members: dict[int, M] = {}
        self._loop = loop
        self._period = period
        self._look = look
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: int, member: M) -> None:
        """Look at this member too, until it leaves."""
        self.members[number] = member
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._tick)

    def stop(self) -> None:
        """Forget everybody."""
        self.members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        for number, member in list(self.members.items()):
            if number not in self.members:
                continue
            try:
                self._look(member)
            except Exception:
                log.exception("a connection is given up: looking at it failed")
                self.members.pop(number, None)
                member.abort()
        self._timer = self._loop.call_later(self._period, self._tick) if self.members else None
