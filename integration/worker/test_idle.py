"""A worker that has nothing to do sleeps, however much it serves; and still tells of pins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from integration.worker.site import Client, Site, live, pids, until
from userproxy.worker import rendezvous
from userproxy.worker.handle import Callbacks, WorkerHandle

if TYPE_CHECKING:
    from userproxy.model import messages

SECONDS = 2.0
A_SECOND = 5
"""Wake-ups: the checker looks around once a second, and what is left over is swept every five seconds."""


def wake_ups(pid: int) -> int:
    """How often a process has waited for something, all threads included."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(
        int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        for text in (task.read_text() for task in tasks)
    )


async def test_a_worker_with_nothing_to_do_sleeps(site: Site) -> None:
    pool, _ = await site.serving()
    (worker,) = pids(pool)
    await live(pool)  # whatever it had to do is done
    before = wake_ups(worker)
    await asyncio.sleep(SECONDS)
    assert wake_ups(worker) - before < A_SECOND * SECONDS


async def test_who_was_pinned_while_nobody_listened_is_told_of_without_a_question(site: Site) -> None:
    pool, wanted = await site.serving()
    wanted = msgspec.structs.replace(wanted, affinity=60.0)
    await pool.serve([wanted])
    pool.leave()
    client = await Client.connect(wanted.listener)
    await asyncio.sleep(0.2)  # the worker would have told
    told: list[messages.Pins] = []
    ((visit, pid),) = rendezvous.connect_to_all(site.prefix)
    callbacks = Callbacks(
        gone=lambda _: None, leaving=lambda _: None, pinned=lambda _, pins: told.append(pins)
    )
    control = WorkerHandle(visit, pid, callbacks)
    try:
        await until(lambda: bool(told))
        assert [(part.pool, [pin.client for pin in part.pins]) for part in told] == [
            (wanted.name, ["127.0.0.1"])
        ]
    finally:
        control.kill()  # nobody else knows of it
    await until(lambda: not control.is_alive)
    await client.is_reset()
