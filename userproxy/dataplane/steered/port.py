"""A Service port that is steered, and its connections."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.model.state import Steer


class Port:
    """A Service port. Lives as long as it is steered, or has a connection.

    Args:
        service: its backends.
        steer: what is wanted of it.

    Attributes:
        service: its backends.
        steer: what is wanted of it.
        places: by backend, the index that the kernel knows it by; not those that it is being told of.
        waiting: packets that are held until there are endpoints, in the order of their coming.
        told: when it was said last that clients wait, in monotonic time.
    """

    __slots__ = ("places", "service", "steer", "told", "waiting")

    def __init__(self, service: LiveService, steer: Steer) -> None:
        self.service = service
        self.steer = steer
        self.places: dict[LiveBackend, int] = {}
        self.waiting: dict[bytes, Carried] = {}
        self.told = 0.0
        self.arrange()

    def update(self, steer: Steer) -> None:
        """Take over new backends and settings."""
        self.steer = steer
        self.service.update(steer)
        self.arrange()

    def arrange(self) -> None:
        """Number the backends, but for those of whose index the kernel is being told."""
        moving = frozenset(self.steer.moving)
        self.places = {live: place for place, live in enumerate(self.service.backends) if place not in moving}


class Carried:
    """One connection, from its first packet until it is over.

    Attributes:
        flow: its key.
        port: whose it is.
        client: the client's IP.
        sequence: that its first packet begins with; None if nobody has seen that here.
        live: its backend, on which it is counted; None while it has none.
        tried: those that have failed it.
        silent: whether one of these has not answered: a packet may have been lost on its way.
        token: of the packet that is held, None if none is.
        since: when it began to be held, in monotonic time.
        sent: when a packet went on last.
        answered: whether its backend has answered.
    """

    __slots__ = (
        "answered",
        "client",
        "flow",
        "live",
        "port",
        "sent",
        "sequence",
        "silent",
        "since",
        "token",
        "tried",
    )

    def __init__(self, flow: bytes, port: Port, client: str, sequence: int | None, now: float) -> None:
        self.flow = flow
        self.port = port
        self.client = client
        self.live: LiveBackend | None = None
        self.try_all(sequence)
        self.token: Token | None = None
        self.since = self.sent = now
        self.answered = False

    def enter(self, live: LiveBackend) -> None:
        """It is on this backend from now on."""
        self.live = live
        live.connections += 1
        self.port.service.enter(self.client)

    def fail(self, error: int) -> None:
        """Its backend has failed it, with this errno, and is not tried again."""
        if self.live is not None:
            self.tried += (self.live,)
            self.silent |= error == errno.ETIMEDOUT
            self.leave()

    def try_all(self, sequence: int | None) -> None:
        """Any backend may be tried, as at the beginning."""
        self.sequence = sequence
        self.tried: tuple[LiveBackend, ...] = ()
        self.silent = False

    def leave(self) -> None:
        """It is on no backend any more."""
        live, self.live = self.live, None
        if live is not None:
            live.connections -= 1
            self.port.service.leave(self.client)


Token = tuple[int, int]
"""A packet's id and mark, by which it is answered."""
