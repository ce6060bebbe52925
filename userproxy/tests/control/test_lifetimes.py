"""Connections of the kernel end when their Service says so, and no others do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.control.lifetimes import CarriedLifetimes
from userproxy.model.endings import Reason
from userproxy.model.service import Path, Protocol
from userproxy.model.settings import Settings
from userproxy.model.state import Frontend
from userproxy.tests.control.rig.node import CART, POD1, POD2, flow, service, snapshot

if TYPE_CHECKING:
    from userproxy.model.snapshot import Snapshot
    from userproxy.tests.control.rig.node import ControlSide

pytestmark = pytest.mark.usefixtures("quiet")

WEB_IP, CART_IP = "10.3.0.1:80", "10.3.0.2:80"


def ended(side: ControlSide) -> list[str]:
    return [line for line in side.journal if line.startswith("end ")]


async def applied(side: ControlSide, settings: Settings) -> tuple[CarriedLifetimes, Snapshot]:
    """The Service `web` with these settings, and `cart` with none."""
    web = msgspec.structs.replace(service(path=Path.REDIRECT_TO_POD), settings=settings)
    wanted = snapshot(web, service(CART, CART_IP, path=Path.REDIRECT_TO_POD))
    await side.apply(wanted)
    side.flows = [flow(WEB_IP, POD1, 1), flow(WEB_IP, POD2, 2), flow(CART_IP, POD1, 3)]
    return CarriedLifetimes(side.sides, side.clock), wanted


async def test_who_is_too_old_is_ended_by_when_it_began_or_was_first_seen(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings(max_connection_age=100.0))
    side.flows[1] = msgspec.structs.replace(side.flows[1], started=side.clock() - 60.0)
    await lifetimes.look(wanted)
    side.clock.now += 89.0
    side.flows[0] = msgspec.structs.replace(side.flows[0])
    await lifetimes.look(wanted)
    assert ended(side) == ["end 2"], "give or take a tenth, and it is 149 seconds old"
    del side.flows[1]
    side.clock.now += 22.0
    await lifetimes.look(wanted)
    assert ended(side) == ["end 2", "end 1"]
    assert list(side.crew.expected.values()) == [Reason.AGED] * 2


async def test_those_of_the_same_age_do_not_all_end_at_once(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings(max_connection_age=100.0))
    side.flows = [flow(WEB_IP, POD1, number) for number in range(1, 31)]
    await lifetimes.look(wanted)
    side.clock.now += 89.0
    times = []
    while side.flows and side.clock.now < 1e9:
        before = len(ended(side))
        await lifetimes.look(wanted)
        times += [side.clock.now] * (len(ended(side)) - before)
        gone = {int(number) for line in ended(side) for number in line.split()[1:]}
        side.flows = [each for each in side.flows if each.id not in gone]
        side.clock.now += 1.0
    assert len(times) > 10
    assert times[-1] - times[0] <= 20.0


async def test_who_does_not_end_is_left_for_a_while(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings(max_connection_age=10.0))
    side.kernel.silent = frozenset({1, 2})
    await lifetimes.look(wanted)
    for seconds in (20.0, 30.0, 31.0):
        side.clock.now += seconds
        await lifetimes.look(wanted)
    assert ended(side) == ["end 1 2"] * 2
    assert set(side.crew.expected.values()) == {None}, "whoever ends them after all has a reason of his own"


async def test_connections_to_a_pod_that_is_gone_end_when_their_time_is_over(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings(close_on_removal=5.0))
    await lifetimes.look(wanted)
    left = msgspec.structs.replace(
        wanted,
        endpoints={
            name: tuple(each for each in endpoints if each.address != POD1)
            for name, endpoints in wanted.endpoints.items()
        },
    )
    await lifetimes.look(left)
    side.clock.now += 4.0
    await lifetimes.look(left)
    assert ended(side) == []
    side.clock.now += 1.0
    await lifetimes.look(left)
    assert ended(side) == ["end 1"], "the other Service does not ask for it"
    assert list(side.crew.expected.values()) == [Reason.BACKEND_REMOVED]


async def test_a_pod_that_comes_back_has_never_been_gone(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings(close_on_removal=5.0))
    for seen in (msgspec.structs.replace(wanted, endpoints={}), wanted):
        await lifetimes.look(seen)
        side.clock.now += 4.0
    await lifetimes.look(msgspec.structs.replace(wanted, endpoints={}))
    assert ended(side) == []


async def test_nothing_is_read_where_no_service_asks_for_it(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings())

    async def refuse(frontends: object) -> list[object]:
        raise AssertionError(frontends)

    side.sides.flows._read = refuse  # type: ignore[assignment]
    await lifetimes.look(wanted)
    await lifetimes.look(None)


async def test_udp_flows_have_no_age(side: ControlSide) -> None:
    lifetimes, wanted = await applied(side, Settings(max_connection_age=1.0))
    datagrams = Frontend(Protocol.UDP, side.flows[0].frontend.address)
    side.flows = [msgspec.structs.replace(side.flows[0], frontend=datagrams, started=1.0)]
    await lifetimes.look(wanted)
    assert ended(side) == []
