"""Where clients are pinned to: what one worker knows reaches the others, and those that come after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.model.heritage import Pin
from userproxy.model.messages import LearnPins, ListPins, Pins
from userproxy.tests.waiting import until
from userproxy.tests.worker.scripted import POD1, POD2, serve

if TYPE_CHECKING:
    from userproxy.tests.worker.scripted import ScriptedWorker, Site

STICKY = msgspec.structs.replace(serve("web", POD1, POD2), affinity=60.0)
CLIENT = "10.0.1.3"
PINS = Pins(pool=STICKY.name, pins=(Pin(CLIENT, POD2, 0.5),))


def learnt(worker: ScriptedWorker) -> list[tuple[str, str]]:
    """The clients that a worker was told of, each with where it goes."""
    orders = (order for order in worker.told(LearnPins) if isinstance(order, LearnPins))
    return [(pin.client, str(pin.backend)) for order in orders for pin in order.pins]


async def test_what_a_worker_tells_the_others_hear_and_who_comes_later(site: Site) -> None:
    pool = await site.started_pool(3)
    await pool.serve([STICKY])
    first, *others = site.started
    first.say(PINS)
    await until(lambda: all(learnt(worker) for worker in others))
    assert [learnt(worker) for worker in others] == [[(CLIENT, str(POD2))]] * 2
    assert learnt(first) == [], "it said so itself"
    await pool._hire(0)
    await until(lambda: learnt(site.started[-1]))
    assert learnt(site.started[-1]) == [(CLIENT, str(POD2))]


async def test_what_earlier_workers_know_the_new_ones_hear(site: Site) -> None:
    earlier = site.left_behind(STICKY)
    earlier.answers[ListPins] = [PINS]
    await site.started_pool(2)
    await until(lambda: all(learnt(worker) for worker in site.started))
    assert [learnt(worker) for worker in site.started] == [[(CLIENT, str(POD2))]] * 2


async def test_earlier_workers_are_not_asked_where_no_client_keeps_its_pod(site: Site) -> None:
    earlier = site.left_behind(serve())
    await site.started_pool()
    assert not earlier.told(ListPins)


@pytest.mark.parametrize("end", ["the Service", "its affinity"])
async def test_pins_are_gone_with(site: Site, end: str) -> None:
    pool = await site.started_pool(2)
    await pool.serve([STICKY])
    site.started[0].say(PINS)
    await until(lambda: learnt(site.started[1]))
    if end == "the Service":
        await pool.close([STICKY.name])
    else:
        await pool.serve([msgspec.structs.replace(STICKY, affinity=None)])
        await pool.serve([STICKY])
    await pool._hire(1)
    await pool.count()  # it has answered whatever came before
    assert learnt(site.started[-1]) == []
