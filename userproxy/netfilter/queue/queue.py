"""The socket of a netfilter queue."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.queue.packets import Answers, packets_of
from userproxy.netfilter.wire.netlink import SOL_NETLINK, Message, Socket, attribute

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from userproxy.netfilter.queue.packets import Packet

LONGEST = 1024
"""Packets that may wait; more go on as if nobody had been asked.

So nobody waits behind more than these, who take some 0.1 s of a processor: those that come again, to pods
that do not answer, take the longest.
"""

_NETLINK_NETFILTER, _NETLINK_NO_ENOBUFS = 12, 5
_CONFIGURE = 3 << 8 | 2
_COMMAND, _PARAMETERS, _MOST, _MASK, _FLAGS = 1, 2, 3, 4, 5
_BIND, _COPY_PACKET = 1, 2
# Falls open when it is full; packets come as they are, whose checksum the network card is to compute, or
# which it is to cut into segments: nothing of them is sent from here.
_FAIL_OPEN, _AS_THEY_ARE = 1, 4
# Headers with options and extensions, up to the ports.
_COPIED_BYTES = 192

_BUFFER_BYTES = 1024  # of one message: what is copied, and some attributes
_PACKETS_A_READ = 64


class PacketQueue:
    """The packets of one queue. Lives as long as the process that answers; then the kernel asks nobody.

    Args:
        number: of the queue, in this network namespace.

    Attributes:
        is_open: packets come.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_open = False
        self._answers = Answers(number)
        self.accept = self._answers.accept
        self.drop = self._answers.drop

    def open(self, inherited: socket.socket | None = None) -> None:
        """Have packets come from now on.

        Args:
            inherited: the socket of a process that has answered so far: no packet that waits is lost.

        Raises:
            NetfilterError: the queue cannot be had.
        """
        try:
            self._socket = _open(self.number) if inherited is None else inherited
        except OSError as error:
            raise NetfilterError(f"cannot read netfilter queue {self.number}: {error}") from error
        self._socket.setblocking(False)  # noqa: FBT003 - as the method has it
        self._read = self._socket.recv
        self.is_open = True

    def fileno(self) -> int:
        """The descriptor, to wait for packets."""
        return self._socket.fileno()

    def read(self) -> list[Packet]:
        """The packets that wait: a bounded number, at least one if there is any."""
        found: list[Packet] = []
        for _ in range(_PACKETS_A_READ):
            try:
                found += packets_of(self._read(_BUFFER_BYTES))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # messages were lost; the packets fall open
                    raise
        return found

    def answer(self, answers: Sequence[bytes]) -> None:
        """Say what becomes of packets, in one message to the kernel.

        They go on before this returns: their way through the rules is walked in this process.
        """
        data = b"".join(answers)
        if data:
            self._socket.send(data)

    def close(self) -> None:
        """Ask the kernel not to wait for us any more. Packets that wait are lost, and sent again."""
        if self.is_open:
            self._socket.close()
            self.is_open = False


def _open(number: int) -> socket.socket:
    connection = Socket(_NETLINK_NETFILTER)
    try:
        _configure(connection, number)
    except BaseException:
        connection.close()
        raise
    return connection.raw


def _configure(connection: Socket, number: int) -> None:
    general = struct.pack(">BBH", 0, 0, number)
    flags = struct.pack(">I", _FAIL_OPEN | _AS_THEY_ARE)
    orders = [
        attribute(_COMMAND, struct.pack(">BxH", _BIND, 0)),
        attribute(_PARAMETERS, struct.pack(">IB", _COPIED_BYTES, _COPY_PACKET))
        + attribute(_MOST, struct.pack(">I", LONGEST))
        + attribute(_MASK, flags)
        + attribute(_FLAGS, flags),
    ]
    for refusal in connection.request([Message(_CONFIGURE, 0, general + order) for order in orders]):
        why = "another process reads it, or CAP_NET_ADMIN is missing: "
        raise OSError(refusal.errno, f"{why * (refusal.errno == errno.EPERM)}{refusal}")
    connection.raw.setsockopt(SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
