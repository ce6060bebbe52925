"""Somebody who reads the netfilter queue on the node, and answers as a scenario has it."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Self

from userproxy.model.steering import FIRST_QUEUE
from userproxy.netfilter.wire.netlink import attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from integration.netfilter.node import Node

_NETLINK_NETFILTER, _ACCEPT = 12, 1
_PACKET, _VERDICT, _CONFIGURE = 0x0300, 0x0301, 0x0302
_HEADER_BYTES = 20


class Asked:
    """Answers for the packets of the first queue, for the time of the block.

    Attributes:
        answer: makes the mark that a packet has the one that it gets.
        marks: those that packets had.
    """

    def __init__(self, node: Node, answer: Callable[[int], int]) -> None:
        self.answer, self.marks = answer, list[int]()
        with node.inside("host"):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._say(_CONFIGURE, attribute(1, struct.pack(">BxH", 1, 0)))
        self._say(_CONFIGURE, attribute(2, struct.pack(">IB", 64, 2)))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                message = self._socket.recv(65536)
            except TimeoutError:
                continue
            if int.from_bytes(message[4:6], sys.byteorder) != _PACKET:
                continue
            found = dict(attributes(message[_HEADER_BYTES:]))
            mark = int.from_bytes(found.get(3, b""), "big")
            self.marks.append(mark)
            verdict = attribute(2, struct.pack(">I", _ACCEPT) + found[1][:4])
            self._say(_VERDICT, verdict + attribute(3, struct.pack(">I", self.answer(mark))))

    def _say(self, kind: int, attrs: bytes) -> None:
        body = struct.pack(">BBH", 0, 0, FIRST_QUEUE) + attrs
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, 1, 0, 0) + body)
