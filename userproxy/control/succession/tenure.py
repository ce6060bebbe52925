"""How a daemon comes to have the node, and what it leaves when another one asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from userproxy.control.announcer import Announcer
    from userproxy.control.handover import Handover
    from userproxy.control.succession.incumbent import Incumbent


class Tenure(NamedTuple):
    """How a daemon comes to the node, and who may come after it.

    Attributes:
        inherited: from the daemon before it.
        confirm: tells that one that it is no longer needed.
        incumbent: listens for the next one.
        announcer: tells whoever has started this one.
    """

    inherited: Handover
    confirm: Callable[[], None]
    incumbent: Incumbent
    announcer: Announcer


class Left(NamedTuple):
    """What a daemon leaves to the one that has asked for the node.

    Attributes:
        handover: what was counted.
        listeners: of HTTP servers, by flag; and the socket that owns our table, before them.
        pids: of the workers that it leaves in this container.
        told_to_stop: whether it was told to stop meanwhile.
    """

    handover: Handover
    listeners: dict[str, socket.socket]
    pids: tuple[int, ...]
    told_to_stop: bool
