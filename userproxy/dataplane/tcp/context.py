"""What all connections share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userproxy.net.sockets import original_sockaddr

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from userproxy.dataplane.tcp.connection import Connection
    from userproxy.dataplane.tcp.dial import Dialling
    from userproxy.dataplane.tcp.greeting import Reception
    from userproxy.dataplane.tcp.pipes import PipePool
    from userproxy.dataplane.tcp.waiting import WaitingRoom
    from userproxy.net.poller import Poller, Watch


class Context(NamedTuple):
    """What all connections share.

    Attributes:
        poller: of the relayed sockets.
        pipes: for the bytes on their way.
        dialling: what reaching a backend takes.
        half_closed: looks after those of which one side has finished.
        resting: wakes those that have left the poller for a moment.
        reception: reads who the clients of balancers in front are.
        waiting: holds those whose Service has no endpoints yet.
        id_of: what an operator calls a connection.
        ended: called with each connection when it is over.
        linger: seconds without a byte on a half-closed connection before it is given up.
        original: tells the original destination of an accepted socket, if that is to be remembered.
    """

    poller: Poller
    pipes: PipePool
    dialling: Dialling
    half_closed: Watch[Connection]
    resting: Watch[Connection]
    reception: Reception
    waiting: WaitingRoom
    id_of: Callable[[Connection], str]
    ended: Callable[[Connection], None]
    linger: float = 60.0
    original: Callable[[socket], bytes | None] = original_sockaddr
