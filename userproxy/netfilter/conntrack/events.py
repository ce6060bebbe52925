"""What conntrack tells of translated connections as it happens: a socket that is told, and how to read it.

The kernel tells of each TCP connection, in this order (README.md has what was found out):
its first packet (NEW), the pod's answer (UPDATE, SYN_RECV), four more changes of state, of which the last one
says that it is over (UPDATE, TIME_WAIT or CLOSE), and up to two minutes later that the entry is gone
(DESTROY). A filter in the kernel lets through what is of use: three messages for most connections.

What happens while the socket's buffer is full is lost. The kernel says so, once, and loses on until all that
was in the buffer has been read. Whoever keeps a book of connections then lists them (`listed`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack import entry, event_filter
from userproxy.netfilter.conntrack.heard import heard, listed_one
from userproxy.netfilter.wire.netlink import SO_RCVBUFFORCE, SOL_NETLINK, RefusedError, Socket

if TYPE_CHECKING:
    from userproxy.netfilter.conntrack.heard import Heard

BUFFER_BYTES = 8 * 1024 * 1024
"""Room for some 10,000 events: an event takes about 800 bytes of it."""

MOST_AT_ONCE = 256

_NEW, _UPDATE, _DESTROY = 1, 2, 3  # enum nfnetlink_groups
_ADD_MEMBERSHIP = 1
_RECEIVE_BYTES = 16384
_CHUNK = 100
_SWITCH = Path("/proc/sys/net/netfilter/nf_conntrack_events")


class Batch(NamedTuple):
    """What was read at once.

    Attributes:
        events: in the order in which they happened.
        lost: others happened that are not told: list what lives, after all that is there has been read.
    """

    events: list[Heard]
    lost: bool


class EventSocket:
    """Is told of translated connections in the namespace that it was made in. Lives as long as its owner.

    Opening it needs CAP_NET_ADMIN, reading does not. Of connections that began while nobody had such a
    socket, in any namespace, nothing is told, not even their end, as long as `nf_conntrack_events` is 2, as
    usual (nf_ct_ecache_ext_add in net/netfilter/nf_conntrack_ecache.c).
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        """Open the socket.

        Raises:
            NetfilterError: it cannot be, or the kernel tells nobody of its connections.
        """
        self._check_switch()
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                entry.NETLINK_NETFILTER,
            )
        except OSError as error:
            raise NetfilterError(f"cannot hear of connections: {error}") from error
        try:
            self._open(buffer_bytes)
        except OSError as error:
            self._socket.close()
            remedy = " (run as root or grant CAP_NET_ADMIN)" if error.errno == errno.EPERM else ""
            raise NetfilterError(f"cannot hear of connections: {error}{remedy}") from error

    def fileno(self) -> int:
        """For an event loop: readable when there is something to read."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def read(self, most: int = MOST_AT_ONCE) -> Batch:
        """What has happened since the last call; empty if nothing has. Does not block.

        When something was lost, all that is there is read, or the kernel would lose on.

        Args:
            most: so many events at once, unless something was lost.
        """
        events: list[Heard] = []
        lost = False
        receive = self._socket.recv
        while len(events) < most or lost:
            try:
                data = receive(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            events += heard(data)
        return Batch(events, lost)

    def _open(self, buffer_bytes: int) -> None:
        # Before the first event, so that all go through it.
        event_filter.attach(self._socket)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes // 2)  # it is doubled
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes // 2)
        self._socket.bind((0, 0))
        for group in (_NEW, _UPDATE, _DESTROY):
            self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def _check_switch(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if _SWITCH.read_text().strip() == "0":
                raise NetfilterError(
                    "the kernel tells nobody of its connections: set net.netfilter.nf_conntrack_events to 2"
                )


def listed() -> list[Heard]:
    """All translated connections that live. Blocks while it reads; for any thread.

    Raises:
        NetfilterError: they cannot be read.
    """
    try:
        connection = Socket(entry.NETLINK_NETFILTER)
        try:
            bodies = connection.dump(entry.question(status=entry.TRANSLATED))
        finally:
            connection.close()
    except (RefusedError, OSError) as error:
        raise NetfilterError(f"cannot read the connections that the kernel tracks: {error}") from error
    found: list[Heard] = []
    for number, body in enumerate(bodies):
        if number % _CHUNK == 0:
            time.sleep(0)  # lets go of the interpreter: the event loop waits for it
        one = listed_one(body)
        if one is not None:
            found.append(one)
    return found
