"""Clients of a Service while somebody interferes: how many there were, and what happened to them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from integration.sockets import connect, inside
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address

PATIENCE_SECONDS = 15.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: server-service\r\nConnection: close\r\n\r\n"
_TIMEOUT_SECONDS = 5.0


class Load:
    """Requests, each on a connection of its own, at a steady rate from several threads.

    Attributes:
        rate: that is aimed at, in requests a second; a machine that is busy does less.
        answered: by server.
        failed: by what happened to them.
        slowest: seconds that a request took, at most.
        seconds: how long it went on.
    """

    def __init__(
        self, lab: Lab, frontend: Address, rate: int = 500, threads: int = 8, *, member: str = "client"
    ) -> None:
        self.rate = rate
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.slowest = 0.0
        self.seconds = 0.0
        self._lab = lab
        self._frontend = frontend
        self._member = member
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(threads,)) for _ in range(threads)]

    def __str__(self) -> str:
        total = self.answered.total() + self.failed.total()
        return (
            f"{total} connections in {self.seconds:.1f} s ({total / max(self.seconds, 0.001):.0f}/s), "
            f"{self.failed.total()} failed {dict(self.failed) or ''}, slowest {self.slowest * 1000:.0f} ms, "
            f"{dict(sorted(self.answered.items()))}"
        )

    @contextlib.contextmanager
    def going_on(self) -> Generator[None]:
        """It goes on as long as the context lasts."""
        began = time.monotonic()
        for thread in self._threads:
            thread.start()
        try:
            wait_until("the load is going on", lambda: self.answered.total() > self.rate, PATIENCE_SECONDS)
            yield
            more = self.answered.total() + self.rate  # and it goes well afterwards
            wait_until("the load still goes on", lambda: self.answered.total() > more, PATIENCE_SECONDS)
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
            self.seconds = time.monotonic() - began

    def _ask(self, threads: int) -> None:
        with inside(self._lab, self._member):
            due = time.monotonic()
            while not self._over.is_set():
                due = max(due + threads / self.rate, time.monotonic() - 0.1)
                time.sleep(max(0.0, due - time.monotonic()))
                began = time.monotonic()
                outcome, who = self._request()
                with self._lock:
                    outcome[who] += 1
                    self.slowest = max(self.slowest, time.monotonic() - began)

    def _request(self) -> tuple[Counter[str], str]:
        try:
            with socket.create_connection(
                (self._frontend.ip, self._frontend.port), timeout=_TIMEOUT_SECONDS
            ) as client:
                client.sendall(_REQUEST)
                answer = b""
                while part := client.recv(4096):
                    answer += part
        except OSError as error:
            return self.failed, type(error).__name__
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200") or b" answers " not in body:
            return self.failed, "incomplete"
        return self.answered, body.split()[0].decode()


class Transfer:
    """An upload that goes on, a piece at a time, until it is finished and its checksum compared."""

    _PIECE = os.urandom(1 << 16)

    def __init__(self, lab: Lab, frontend: Address, pieces: int = 400) -> None:
        self._client = connect(lab, "client", frontend)
        self._left = pieces
        self._sum = hashlib.sha256()
        self._length = pieces * len(self._PIECE)
        head = (
            f"POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {self._length}\r\n\r\n"
        )
        self._client.sendall(head.encode())

    def some(self, pieces: int = 20) -> None:
        """Send some of what is left.

        Raises:
            OSError: the connection is no more.
        """
        for _ in range(min(pieces, self._left)):
            self._client.sendall(self._PIECE)
            self._sum.update(self._PIECE)
            self._left -= 1

    def finish(self) -> bool:
        """Send the rest; whether the server got every byte right."""
        self.some(self._left)
        answer = b""
        while part := self._client.recv(4096):
            answer += part
        self._client.close()
        return answer.rpartition(b"\r\n\r\n")[2] == f"{self._length} {self._sum.hexdigest()}\n".encode()


def workers(lab: Lab, host: str = "host1") -> list[int]:
    """The pids of the workers on a host, also those of earlier daemons."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (
                b"userproxy.worker.process" in (entry / "cmdline").read_bytes()
                and (entry / "ns/net").stat().st_ino
                == Path(f"/run/netns/{lab.namespace(host)}").stat().st_ino
            ):
                found.append(int(entry.name))
    return sorted(found)


def starts(lab: Lab) -> int:
    """How often the daemon on host1 has said that it started."""
    return lab.daemon("host1").output().count(" started ")


def has_started(lab: Lab, times: int) -> bool:
    """Whether the daemon on host1 has started so often."""
    return starts(lab) == times
