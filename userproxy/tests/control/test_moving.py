"""A node that gets another address, or loses its own for a while."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from userproxy.control.reconcile import ApplyError
from userproxy.model.address import Address, IpFamily
from userproxy.model.service import Path, PoolName
from userproxy.model.state import ToListener, ToPods
from userproxy.netfilter import NetfilterError
from userproxy.tests.control.rig.node import (
    CART,
    POD1,
    POD2,
    WEB,
    ControlSide,
    config,
    service,
    snapshot,
    tcp,
)

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")

OLD, NEW = "10.100.0.2", "10.100.0.9"
SERVICES = snapshot(service(), service(CART, "10.3.0.2:80", path=Path.REDIRECT_TO_POD))


@pytest.fixture
def following(tmp_path: FilePath, sockets: Sockets) -> ControlSide:
    """Nobody has named its host IP."""
    return ControlSide(tmp_path, sockets, config(host_ip_follows=tuple(IpFamily)))


async def test_it_listens_on_the_same_ports_and_then_packets_are_sent_there(following: ControlSide) -> None:
    side = following
    await side.apply(SERVICES)
    side.addresses = [NEW]
    assert side.reconciler.look_at_address(changed=True)
    assert await side.again() == [
        f"move to {NEW}",
        "serve default/web on 10400",
        "capture 1",
        f"forget {OLD}:10400",
    ]
    listener = Address(NEW, 10400)
    assert side.workers.serves[PoolName.of(WEB)].listener == listener
    assert side.kernel.captures == {
        tcp("10.3.0.1:80"): ToListener(listener),
        tcp("10.3.0.2:80"): ToPods((POD1, POD2)),
    }
    assert {guard.address for guard in side.kernel.guards} == {listener}
    assert not side.problems()
    assert not side.reconciler.look_at_address(changed=False)
    assert await side.again() == []


async def test_while_it_has_no_address_everything_stays_where_it_is(following: ControlSide) -> None:
    side = following
    await side.apply(SERVICES)
    side.addresses = []
    assert side.reconciler.look_at_address(changed=True)
    assert await side.again() == ["move to nowhere"]
    assert side.problems() == ["host1: HostAddressMissing"]
    side.addresses = [OLD]
    assert side.reconciler.look_at_address(changed=True)
    assert await side.again() == [f"move to {OLD}"], "the kernel has dropped the routes meanwhile"
    assert not side.problems()


async def test_an_address_that_was_named_by_hand_is_waited_for(side: ControlSide) -> None:
    await side.apply(SERVICES)
    side.addresses = [NEW]
    assert side.reconciler.look_at_address(changed=True)
    assert await side.again() == ["move to nowhere"]
    assert side.problems() == ["host1: HostAddressMissing"]
    assert side.workers.serves[PoolName.of(WEB)].listener.ip == OLD


async def test_other_addresses_that_come_and_go_put_the_routes_back_and_no_more(side: ControlSide) -> None:
    await side.apply(SERVICES)
    side.addresses = [NEW, OLD]
    assert side.reconciler.look_at_address(changed=True)
    assert await side.again() == [f"move to {OLD}"]
    assert not side.reconciler.look_at_address(changed=False), "routes alone are no news"
    assert side.reconciler.look_at_address(changed=True), (
        "gone and back at once: its routes have gone with it"
    )
    assert await side.again() == [f"move to {OLD}"]


async def test_what_fails_of_a_move_is_made_up_for(following: ControlSide) -> None:
    side = following
    await side.apply(SERVICES)
    side.addresses = [NEW]
    side.reconciler.look_at_address(changed=True)
    side.kernel.errors["move"] = NetfilterError("the routes cannot be changed")
    with pytest.raises(NetfilterError):
        await side.again()
    side.kernel.errors.clear()
    side.workers.unopenable[WEB] = errno.EADDRNOTAVAIL
    with pytest.raises(ApplyError):
        await side.again()
    assert side.kernel.captures[tcp("10.3.0.1:80")] == ToListener(Address(OLD, 10400))
    side.workers.unopenable.clear()
    side.kernel.errors["forget_redirected"] = NetfilterError("conntrack does not answer")
    with pytest.raises(NetfilterError):
        await side.again()
    side.kernel.errors.clear()
    assert await side.again() == [f"forget {OLD}:10400"]
    assert side.kernel.captures[tcp("10.3.0.1:80")] == ToListener(Address(NEW, 10400))
