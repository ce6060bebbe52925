"""What heir and incumbent say to each other; either may be another version, so fields are only ever added."""

from __future__ import annotations

import errno
import socket

import msgspec

NAME = "userproxy-succession"
"""Of the abstract unix socket that an incumbent listens on; it belongs to the network namespace."""


class TakeOver(msgspec.Struct, frozen=True, tag="take-over"):
    """The heir wants the node.

    Attributes:
        version: of its program.
    """

    version: str


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """The heir has it. What it gets before that is a `userproxy.control.handover.Handover`."""


_DECODER = msgspec.msgpack.Decoder(TakeOver | Taken)
encode = msgspec.msgpack.Encoder().encode


def decode(message: bytes) -> TakeOver | Taken | None:
    """What an heir has said; None for what this version does not know."""
    try:
        said: TakeOver | Taken = _DECODER.decode(message)
    except msgspec.DecodeError:
        return None
    return said


def connect(name: str) -> socket.socket | None:
    """A connection to the incumbent; None if nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(0)
    failure = sock.connect_ex(f"\0{name}")
    if failure == 0:
        return sock
    sock.close()
    if failure not in (errno.ECONNREFUSED, errno.EAGAIN):
        raise OSError(failure, errno.errorcode.get(failure, ""))
    return None
