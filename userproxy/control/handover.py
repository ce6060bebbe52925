"""What a control process leaves to the one that takes its place.

Workers need no such thing, they are found by their rendezvous. This is for what only the control process
has: what it has counted, the sockets on which probes are answered, and the one that owns our nftables table,
so that this is nobody else's for no moment. Within a process (SIGHUP, execve(2))
it lies in a file in memory whose number is in the environment; to another one it goes as a message
(`userproxy.control.succession`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import msgspec
import structlog

from userproxy.model.address import Address
from userproxy.model.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger("userproxy")

VARIABLE = "USERPROXY_HANDOVER"
"""The number of the file, and the pid that it is for: a child of that process must not take it."""


RULES = "nftables"
"""Among the sockets, the one that owns our table. A version that does not know it closes it, and goes on."""


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What is left.

    Attributes:
        past: what was counted by processes that are gone, the former control process included.
        workers: what the workers had counted, by name. Whoever is not there any more counts as gone.
        listeners: by flag (`healthz-bind-address`), descriptors of listening sockets; and that of `RULES`.
    """

    past: Counters = msgspec.field(default_factory=Counters)
    workers: dict[int, Counters] = {}
    listeners: dict[str, int] = {}


class _Listeners(msgspec.Struct):
    """Of a `Handover`, what any version understands."""

    listeners: dict[str, int]


NOTHING = Handover()


def leave(past: Counters, workers: Mapping[int, Counters], listeners: Mapping[str, socket.socket]) -> None:
    """Leave all of a `Handover` to the program that this process is about to execute."""
    fds: dict[str, int] = {}
    try:
        for name, sock in listeners.items():
            fds[name] = os.dup(sock.fileno())
        file = os.memfd_create("userproxy-handover", 0)
    except OSError as error:
        log.warning("counters begin anew, and probes are refused for a moment", error=error.strerror)
        for fd in fds.values():
            os.close(fd)
        return
    for fd in fds.values():
        os.set_inheritable(fd, True)  # noqa: FBT003 - as the function has it
    os.write(file, msgspec.msgpack.encode(Handover(past=past, workers=dict(workers), listeners=fds)))
    os.environ[VARIABLE] = f"{file} {os.getpid()}"


def take() -> Handover:
    """Take what was left to this process."""
    file, _, pid = os.environ.pop(VARIABLE, "").partition(" ")
    if pid != str(os.getpid()) or not file.isdecimal():
        return NOTHING
    try:
        with open(int(file), "rb") as left:  # noqa: PTH123 - a descriptor
            left.seek(0)
            content = left.read()
    except OSError as error:
        log.warning("what the former daemon had counted is lost", error=str(error))
        return NOTHING
    return decode(content)


def decode(content: bytes) -> Handover:
    """What was left, as far as it can be understood: it may be another version's."""
    try:
        return msgspec.msgpack.decode(content, type=Handover)
    except msgspec.DecodeError as error:
        log.warning("what the former daemon had counted is lost", error=str(error))
    # The sockets are ours all the same: clients that connect to them would wait for ever.
    with contextlib.suppress(msgspec.DecodeError):
        return Handover(listeners=msgspec.msgpack.decode(content, type=_Listeners).listeners)
    return NOTHING


def take_rules(handover: Handover) -> socket.socket | None:
    """The socket that owns our table, if it was left; nobody else will find it in the handover."""
    fd = handover.listeners.pop(RULES, None)
    if fd is None:
        return None
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # not a socket of ours
        return None
    os.set_inheritable(fd, False)  # noqa: FBT003 - as the function has it
    return sock


def adopt(
    handover: Handover, wanted: Mapping[str, Address | None], kept: str = ""
) -> dict[str, socket.socket]:
    """The listening sockets that are still wanted, by flag; the others are closed.

    Args:
        handover: what was left.
        wanted: by flag, the address to listen on now.
        kept: those whose name begins so are kept: whether they are wanted shows later.
    """
    adopted: dict[str, socket.socket] = {}
    for name, fd in handover.listeners.items():
        try:
            sock = socket.socket(fileno=fd)
        except OSError:  # not a socket of ours
            continue
        os.set_inheritable(fd, False)  # noqa: FBT003 - likewise
        with contextlib.suppress(OSError):
            own = Address(*sock.getsockname()[:2])
            if own == wanted.get(name) or (kept and name.startswith(kept)):
                adopted[name] = sock
                continue
        sock.close()
    return adopted
