"""A client that asks at a steady rate from one port, whatever happens: which questions are not answered?"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from integration.udp.servers import WHO, client
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address

_PATIENCE_SECONDS = 15.0
_LAST_SECONDS = 5.0


class Steady:
    """Questions with numbers, at a steady rate.

    Attributes:
        sent: how many.
        answers: by number, which pod answered, and whom it saw.
        refused: how often the kernel said that nobody is there.
        name: its address, as a listing has it.
    """

    def __init__(self, lab: Lab, member: str, address: Address, rate: float = 20.0) -> None:
        self.sent = 0
        self.answers: dict[int, tuple[str, str]] = {}
        self.refused = 0
        self._pause = 1 / rate
        self._sock = client(lab, member, address)
        ip, port = self._sock.getsockname()
        self.name = f"{ip}:{port}"
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._hear)]

    @property
    def pod(self) -> str:
        """Who has answered last."""
        return self.answers[max(self.answers)][0]

    @property
    def lost(self) -> list[int]:
        """The questions that have not been answered."""
        return [number for number in range(self.sent) if number not in self.answers]

    def some(self, count: int = 3) -> None:
        """Wait until so many more questions have been answered."""
        wanted = len(self.answers) + count
        wait_until("questions are answered", lambda: len(self.answers) >= wanted, _PATIENCE_SECONDS)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[Steady]:
        """It goes on as long as the block, and is answered before and after it."""
        self.start()
        try:
            self.some(1)
            yield self
            self.some()
        finally:
            self.stop()

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more, and wait a moment for the last answers."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._sock.close()

    def _ask(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            try:
                self._sock.send(WHO + str(self.sent).encode())
            except OSError:
                self.refused += 1  # the last one was; this one was not sent
                continue
            self.sent += 1

    def _hear(self) -> None:
        ends = None
        self._sock.settimeout(0.05)
        while ends is None or time.monotonic() < ends:
            if ends is None and self._over.is_set():
                ends = time.monotonic() + _LAST_SECONDS
            try:
                pod, peer, question = self._sock.recv(1000).decode().split()
            except TimeoutError:
                if ends is not None and not self.lost:
                    return
                continue
            except OSError:
                self.refused += 1
                continue
            self.answers[int(question.removeprefix(WHO.decode()))] = (pod, peer)
