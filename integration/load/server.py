"""The pods' side of the load: answers at once, and costs little.

`python -m integration.load.server NAME PORT` listens on all addresses, says `ready`, and ends with its stdin.
By TCP, the first word of a connection says what it is for:

| the client says | it gets                                                        |
|-----------------|----------------------------------------------------------------|
| `once N`        | `N NAME`, and the end                                          |
| `ask N`         | `N NAME`; and so on with further lines of that kind            |
| `echo`          | every byte after that line, as it comes                        |

By UDP, on the same port, `N` gets `N NAME` too.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

from integration.load.loop import Loop

ONCE, ASK, ECHO = b"once", b"ask", b"echo\n"
_READ_BYTES = 1 << 16
_MOST_UNSENT = 1 << 18


class Connection:
    """A client: a line at a time, or a stream that is echoed."""

    def __init__(self, loop: Loop, sock: socket.socket, name: bytes) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._name = name
        self._unread = b""
        self._unsent = bytearray()
        self._echoes = False
        self._ended = False
        loop.watch(self._fd, select.EPOLLIN, self._on_ready)

    def _on_ready(self, events: int) -> None:
        try:
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read()
            if self._unsent:
                with contextlib.suppress(BlockingIOError):
                    del self._unsent[: self._sock.send(self._unsent)]
        except OSError:
            self._ended, self._unsent = True, bytearray()
        if self._ended and not self._unsent:
            self._loop.forget(self._fd)
            self._sock.close()
        elif self._echoes:
            self._loop.change(self._fd, self._interest())

    def _interest(self) -> int:
        reads = not self._ended and len(self._unsent) < _MOST_UNSENT
        return (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self._unsent else 0)

    def _read(self) -> None:
        data = self._sock.recv(_READ_BYTES)
        if not data:
            self._ended = True
        elif self._echoes:
            self._unsent += data
        else:
            *lines, self._unread = (self._unread + data).split(b"\n")
            for number, line in enumerate(lines):
                if line + b"\n" == ECHO:
                    self._echoes = True
                    self._unsent += b"\n".join([*lines[number + 1 :], self._unread])
                    return
                self._answer(line)

    def _answer(self, line: bytes) -> None:
        word, _, number = line.partition(b" ")
        self._unsent += b"%b %b\n" % (number, self._name)
        self._ended = self._ended or word == ONCE


def serve(name: str, port: int) -> None:
    """Serve until stdin ends, in both families where there are both."""
    loop = Loop()
    over = False
    family, anywhere = (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "")
    tcp = socket.create_server(
        (anywhere, port), family=family, backlog=4096, dualstack_ipv6=family == socket.AF_INET6
    )
    udp = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind((anywhere, port))
    tcp.settimeout(0)
    udp.settimeout(0)

    def accept(_events: int) -> None:
        with contextlib.suppress(OSError):
            sock, _ = tcp.accept()
            sock.settimeout(0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(loop, sock, name.encode())

    def answer(_events: int) -> None:
        with contextlib.suppress(OSError):
            question, peer = udp.recvfrom(2048)
            udp.sendto(b"%b %b\n" % (question, name.encode()), peer)

    def end(_events: int) -> None:
        nonlocal over
        over = over or not os.read(sys.stdin.fileno(), 1)

    loop.watch(tcp.fileno(), select.EPOLLIN, accept)
    loop.watch(udp.fileno(), select.EPOLLIN, answer)
    loop.watch(sys.stdin.fileno(), select.EPOLLIN, end)
    print("ready", flush=True)
    loop.run(lambda: not over)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
