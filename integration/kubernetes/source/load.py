"""Asks a web server without a pause until SIGTERM, each time over a new connection; then tells how it went.

`python load.py IP PORT CONCURRENCY INTERVAL`: the last line of stdout is a JSON object with the number of
`requests`, the `failures` (each in words), and `latencies` as [seconds since the epoch, seconds taken].
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time


async def ask(ip: str, port: int) -> None:
    """One request.

    Raises:
        OSError: it was refused or cut.
        ValueError: the answer is not the whole of a good one.
    """
    reader, writer = await asyncio.open_connection(ip, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 200") or b"answers" not in answer:
        raise ValueError(f"answered {answer[:80]!r}")


async def main(ip: str, port: int, concurrency: int, interval: float) -> None:
    """Ask, and tell."""
    failures: list[str] = []
    latencies: list[tuple[float, float]] = []
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def client() -> None:
        while not stop.is_set():
            at, began = time.time(), time.perf_counter()
            try:
                async with asyncio.timeout(5):
                    await ask(ip, port)
            except (OSError, ValueError, TimeoutError) as error:
                failures.append(f"{type(error).__name__}: {error}")
            latencies.append((round(at, 3), round(time.perf_counter() - began, 6)))
            await asyncio.sleep(interval)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(client())
    print(json.dumps({"requests": len(latencies), "failures": failures, "latencies": latencies}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
