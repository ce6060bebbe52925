"""Clients that wait for their Service to have endpoints: a bounded number of them, for a bounded time.

| what happens | then |
|---|---|
| endpoints come | each is dialled for, in the order of arrival |
| as many wait as may, and one more comes | that one is reset |
| the time is over | reset |
| the client finishes sending, or resets | it has given up: its place is free |
| the Service is gone, or wants nobody held any more | reset |

What a client has sent stays in its socket meanwhile. A client that has finished sending may in principle wait
for the answer still; but so does everybody look who has given up, and those would fill all the places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.net.poller import ERROR, PEER_FINISHED, Watch

if TYPE_CHECKING:
    import asyncio
    from _socket import socket
    from collections.abc import Callable

    from userproxy.backends.service import LiveService
    from userproxy.model.counters import Counters
    from userproxy.model.service import PoolName
    from userproxy.net.poller import Poller

# How often places are looked at: the time is kept to within this many seconds.
_TICK_SECONDS = 0.25

# Between two times that it is said that clients wait: whoever is to see to it may have missed the first.
_AGAIN_SECONDS = 15.0


class Waiter(Protocol):
    """A client that waits.

    Attributes:
        number: unique while the daemon lives.
        service: whose endpoints it waits for.
    """

    number: int
    service: LiveService

    def waited(self, event: Event) -> None:
        """What came of it: `ENDPOINTS_CAME`, or how it ends."""
        ...

    def abort(self) -> None:
        """Give everything up."""
        ...


class Place:
    """One client's place.

    Args:
        owner: who waits.
        fd: of the client's socket.
        now: since when, in the poller's time.
    """

    __slots__ = ("fd", "owner", "since")

    def __init__(self, owner: Waiter, fd: int, now: float) -> None:
        self.owner = owner
        self.fd = fd
        self.since = now

    def on_ready(self, mask: int) -> None:
        """The poller's call: the client is gone."""
        self.owner.waited(Event.CLIENT_RESET if mask & ERROR else Event.CLIENT_FIN)

    def abort(self) -> None:
        """`on_ready` or a look raised."""
        self.owner.abort()


class WaitingRoom:
    """All clients that wait, of every Service port. Lives as long as the data plane.

    Args:
        loop: that drives it.
        poller: of the clients' sockets.
        counters: of this process.
        need_pods: called with the name of a pool that clients wait for, when the first comes and from time to
            time after that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        counters: Counters,
        need_pods: Callable[[PoolName], object],
    ) -> None:
        self._poller = poller
        self._counters = counters
        self._need_pods = need_pods
        self._watch = Watch(loop, _TICK_SECONDS, self._look)
        self._queues: dict[LiveService, dict[int, Place]] = {}
        self._told: dict[LiveService, float] = {}

    def __len__(self) -> int:
        """How many clients wait."""
        return len(self._watch.members)

    def enter(self, owner: Waiter, client: socket) -> bool:
        """Give a client a place; returns whether there was one."""
        service, now = owner.service, self._poller.clock()
        queue = self._queues.setdefault(service, {})
        if len(queue) >= service.places:
            return False
        place = Place(owner, client.fileno(), now)
        # Nothing is read: only that the client has finished, a reset and a failure are told.
        self._poller.register(place.fd, PEER_FINISHED, place)
        queue[owner.number] = place
        self._watch.add(owner.number, place)
        self._counters.clients_held += 1
        if service not in self._told:
            self._tell(service, now)
        return True

    def leave(self, owner: Waiter) -> None:
        """Free a client's place, if it has one."""
        place = self._watch.members.pop(owner.number, None)
        if place is None:
            return
        self._poller.unregister(place.fd)
        queue = self._queues[owner.service]
        del queue[owner.number]
        if not queue:
            del self._queues[owner.service]
            del self._told[owner.service]

    def settle(self, service: LiveService) -> None:
        """A Service port has changed: let those go on, or end, who need not wait any more."""
        if not service.holds:
            event = Event.ENDPOINTS_CAME if service.backends else Event.NO_BACKEND
            self._let_go(service, event)

    def empty(self) -> int:
        """End the waiting for everybody: no endpoints will come any more. Returns how many that were."""
        count = len(self)
        for service in list(self._queues):
            self._let_go(service, Event.SHUTDOWN)
        return count

    def stop(self) -> None:
        """Look at nobody any more."""
        self._watch.stop()

    def _let_go(self, service: LiveService, event: Event) -> None:
        for place in list(self._queues.get(service, {}).values()):
            place.owner.waited(event)

    def _look(self, place: Place) -> None:
        service, now = place.owner.service, self._poller.clock()
        if now - place.since >= service.pool.settings.hold_timeout:
            place.owner.waited(Event.HOLD_EXPIRED)
        elif now - self._told[service] >= _AGAIN_SECONDS:
            self._tell(service, now)

    def _tell(self, service: LiveService, now: float) -> None:
        self._told[service] = now
        self._need_pods(service.pool.name)
