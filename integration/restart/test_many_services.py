"""5,000 listeners change hands: to the next daemon's workers, and to the successor of one that died."""

from __future__ import annotations

import os
import secrets
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from integration.vitals import open_files, resident_bytes
from integration.worker.site import Client, Site, minded, pids, serve, until
from userproxy.app import raise_file_limit
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICES = 5_000


@asynccontextmanager
async def loopback() -> AsyncIterator[Site]:
    site = Site(f"userproxy-scale-{secrets.token_hex(8)}-")
    try:
        yield site
    finally:
        await site.shut()


async def test_many_listeners_are_handed_over_in_a_moment() -> None:
    raise_file_limit()
    async with loopback() as site:
        server = await site.server()
        first = await site.pool()
        (worker,) = pids(first)
        idle, files = resident_bytes(worker), open_files(worker)
        wanted = [
            serve(f"web{one}", server.address, listener=Address(f"127.9.{one // 250}.{one % 250 + 1}", 20000))
            for one in range(SERVICES)
        ]
        began = time.monotonic()
        assert await first.serve(wanted) == {}
        opened = time.monotonic() - began
        grown = resident_bytes(worker) - idle
        first.leave()
        began = time.monotonic()
        second = await site.pool()
        print(
            f"{SERVICES} Service ports: opened in {opened:.2f} s, "
            f"taken over in {time.monotonic() - began:.2f} s; "
            f"a worker takes {grown / 1e6:.0f} MB for them"
        )
        assert len(second.serves) == SERVICES
        await (await Client.connect(wanted[-1].listener)).close()
        (victim,) = pids(second)
        async with minded(second):
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            await until(lambda: pids(second) not in ([], [victim]))
            await (await Client.connect(wanted[-1].listener)).close()
            seconds = time.monotonic() - began
            print(f"a worker is killed: its successor serves the last of them after {seconds:.2f} s")
        (heir,) = pids(second)
        await second.close([each.name for each in wanted])
        assert abs(open_files(heir) - files) <= 2
