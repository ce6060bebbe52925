"""Clients that upload 1 byte to 10 MB, verify what the pod says it got, and now and then give up midway."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING

from integration.sockets import inside

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.lab.deployment import Lab
    from userproxy.model.address import Address

PATIENCE_SECONDS = 20.0
CONNECT_SECONDS = 1.5
LARGEST = 10_000_000
GIVES_UP = 0.15
_CHUNK = 1 << 16
_POOL = random.Random(0).randbytes(1 << 20)  # noqa: S311 - repeatable


class Uploads(threading.Thread):
    """So many clients at once, in the client's namespace, until stopped.

    Args:
        lab: the lab.
        seed: of everything at random.
        clients: how many at once.
        choose: the frontend for the next upload.

    Attributes:
        outcomes: how many uploads ended how; `wrong` is what must never happen.
        bytes: that were uploaded completely.
    """

    def __init__(self, lab: Lab, seed: int, clients: int, choose: Callable[[random.Random], Address]) -> None:
        super().__init__(name="uploads")
        self.outcomes: Counter[str] = Counter()
        self.bytes = 0
        self._lab = lab
        self._seed = seed
        self._clients = clients
        self._choose = choose
        self._stopping = threading.Event()

    def run(self) -> None:
        """Of the thread, which lives in the client's namespace."""
        with inside(self._lab, "client"):
            asyncio.run(self._upload_all())

    def stop(self) -> None:
        """Begin no further upload, and wait for the last one."""
        self._stopping.set()
        self.join()

    async def _upload_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._clients):
                tasks.create_task(self._one_client(random.Random(self._seed * 1000 + number)))  # noqa: S311

    async def _one_client(self, draw: random.Random) -> None:
        while not self._stopping.is_set():
            size = int(LARGEST ** draw.random())
            stop_at = int(size * draw.random()) if draw.random() < GIVES_UP else None
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    outcome = await self._upload(self._choose(draw), size, stop_at)
            except TimeoutError:
                outcome = "timed out"
            except (OSError, EOFError):
                outcome = "cut"
            self.outcomes[outcome] += 1
            await asyncio.sleep(draw.random() * 0.02)

    async def _upload(self, frontend: Address, size: int, stop_at: int | None) -> str:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(frontend.ip, frontend.port)
        except TimeoutError:
            return "unanswered"  # its first packet was sent before the Service was there, or after it
        try:
            request = (
                f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
            )
            writer.write(request.encode())
            digest, sent = hashlib.sha256(), 0
            while sent < size:
                if stop_at is not None and sent >= stop_at:
                    writer.transport.abort()
                    return "given up"
                chunk = _POOL[: min(_CHUNK, size - sent)]
                digest.update(chunk)
                writer.write(chunk)
                sent += len(chunk)
                await writer.drain()
            answer = await reader.read()
        finally:
            writer.transport.abort()
        if not answer:
            return "cut"
        self.bytes += size
        return "right" if answer.endswith(f"{size} {digest.hexdigest()}\n".encode()) else "wrong"
