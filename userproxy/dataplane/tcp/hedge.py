"""A second dial beside a first one that has not been answered yet: whichever is answered first is taken.

| what happens | then |
|---|---|
| the first is answered | the second is given up |
| the second is answered | the first is given up, and the second takes its place |
| the first fails | the second takes its place, with the time that it has left |
| the second fails | the first goes on alone |
| the connection ends | both end |

Source: "Happy Eyeballs", RFC 8305, section 5.
"""

from __future__ import annotations

import errno
import socket as net
from typing import TYPE_CHECKING, Protocol

from userproxy.net.poller import ERROR, HANGUP, WRITE
from userproxy.net.sockets import dialling_socket, reset_on_close

if TYPE_CHECKING:
    from userproxy.backends.backend import LiveBackend
    from userproxy.net.poller import Poller


class Hedged(Protocol):
    """Whose second dial it is."""

    def hedge_answered(self) -> None:
        """It was answered."""
        ...

    def hedge_failed(self, error: int) -> None:
        """It failed, with this errno."""
        ...

    def abort(self) -> None:
        """Give everything up."""
        ...


class Hedge:
    """The second dial. It counts as a connection of its backend until it is left.

    Args:
        poller: of the sockets.
        owner: whose dial it is.
        backend: to dial.
        seconds: that it may take.

    Attributes:
        backend: that is dialled.
        sock: that it is dialled on; whoever takes the place of the first one takes it over.
        began: in monotonic time.
        ends: when it has had its time.
        kept: the IP that the backend sees it come from, if that is the client's own; else empty.

    Raises:
        OSError: there is no socket for it.
    """

    __slots__ = ("_owner", "_poller", "backend", "began", "ends", "kept", "sock")

    def __init__(self, poller: Poller, owner: Hedged, backend: LiveBackend, seconds: float) -> None:
        self.backend = backend
        self.began = poller.clock()
        self.ends = self.began + seconds
        self.kept = ""
        self._poller = poller
        self._owner = owner
        self.sock = dialling_socket(backend.address)
        reset_on_close(self.sock)
        backend.connections += 1

    def dial(self) -> int:
        """Begin; returns the errno of a failure at once, or else 0: the rest comes as events."""
        outcome = self.sock.connect_ex(self.backend.sockaddr)
        if outcome not in (0, errno.EINPROGRESS):
            return outcome
        self._poller.register(self.sock.fileno(), WRITE, self)
        return 0

    def on_ready(self, mask: int) -> None:
        """The poller's call: the backend answered, or refused."""
        if mask & (ERROR | HANGUP):
            self._owner.hedge_failed(self.sock.getsockopt(net.SOL_SOCKET, net.SO_ERROR))
        else:
            self._owner.hedge_answered()

    def abort(self) -> None:
        """The poller's call: `on_ready` raised."""
        self._owner.abort()

    def leave(self) -> None:
        """Give it up."""
        self._poller.close(self.sock)
        self.backend.connections -= 1
