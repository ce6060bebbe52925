"""An index never leads to another pod than was meant, whenever it is said and looked up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from userproxy.backends.service import LiveService
from userproxy.control.steering import Steering
from userproxy.dataplane.steered.port import Port
from userproxy.model.address import Address
from userproxy.model.heritage import Pin
from userproxy.model.service import Path, PoolName, Protocol, ServicePortName
from userproxy.model.state import Backend, Frontend, Refuse, Steer, Target, ToPods
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.elements.pins import Kept
from userproxy.tests.control.rig.neighbours import InMemoryCrew, InMemoryKernel
from userproxy.tests.control.rig.node import CART, POD1, POD2, POD3, WEB, ControlSide, service, snapshot, tcp

if TYPE_CHECKING:
    from collections.abc import Mapping

FRONTENDS = [Address(f"10.3.0.{number}", 80) for number in range(3)]
PODS = [Address(f"10.0.1.{number}", 8080) for number in range(5)]
NAMES = [ServicePortName("default", name) for name in ("web", "cart")]

pod_lists = st.lists(st.sampled_from(PODS), unique=True, max_size=4)
wholes = st.tuples(
    st.tuples(pod_lists, pod_lists),  # the near ones of each Service
    st.tuples(st.booleans(), st.booleans()),  # whether it is steered
    st.lists(st.sampled_from((0, 1, None)), min_size=3, max_size=3),  # whose each frontend is
)


class Cluster:
    """Services that share frontends in turn, and the kernel's and the steering process's idea of them."""

    def __init__(self) -> None:
        self.captures: dict[Frontend, Target] = {}
        self.ports: dict[PoolName, Port] = {}
        self.crew = InMemoryCrew()
        self.steering = Steering(self.crew, InMemoryKernel([]))

    def wanted(
        self, whole: tuple[tuple[list[Address], ...], tuple[bool, ...], list[int | None]]
    ) -> tuple[dict[PoolName, Steer], dict[Frontend, Target]]:
        """Who is steered, and what the kernel is to have."""
        pods, steered, owners = whole
        captures: dict[Frontend, Target] = {}
        for address, owner in zip(FRONTENDS, owners, strict=True):
            if owner is not None:
                found = tuple(pods[owner])
                to_pods = ToPods(found[:1], steered=steered[owner], others=found[1:])
                captures[Frontend(Protocol.TCP, address)] = to_pods if found else Refuse()
        steers = [
            Steer(
                service=name,
                backends=tuple(map(Backend, pods[number])),
                frontends=tuple(one for one, whose in zip(FRONTENDS, owners, strict=True) if whose == number),
            )
            for number, name in enumerate(NAMES)
            if steered[number]
        ]
        return {steer.name: steer for steer in steers}, captures

    def listen(self) -> None:
        """The process takes in what it was told."""
        told = self.crew.wanted
        for name in [name for name in self.ports if name not in told]:
            del self.ports[name]
        for name, steer in told.items():
            if name in self.ports:
                self.ports[name].update(steer)
            else:
                self.ports[name] = Port(LiveService(steer), steer)

    def check(self) -> None:
        """Whatever the process says now leads where it means."""
        for port in self.ports.values():
            for address in port.steer.frontends:
                target = self.captures.get(Frontend(Protocol.TCP, address))
                known = (*target.pods, *target.others) if isinstance(target, ToPods) else ()
                for live, index in port.places.items():
                    assert target is None or known[index] == live.address

    def check_all(self) -> None:
        """And every pod is named."""
        self.check()
        for port in self.ports.values():
            assert len(port.places) == len(port.service.backends) or not port.steer.frontends


@given(st.lists(st.tuples(wholes, st.booleans()), max_size=5))
def test_what_is_said_around_a_change_means_the_same_before_and_after_it(
    changes: list[tuple[tuple[tuple[list[Address], ...], tuple[bool, ...], list[int | None]], bool]],
) -> None:
    async def scenario() -> None:
        cluster = Cluster()
        for whole, is_refused in changes:
            steers, captures = cluster.wanted(whole)
            await cluster.steering.prepare(steers, cluster.captures)
            cluster.listen()
            cluster.check()
            if is_refused:
                continue
            cluster.captures = captures
            cluster.check()
            await cluster.steering.settle(captures)
            cluster.listen()
            cluster.check_all()

    asyncio.run(scenario())


def told(side: ControlSide) -> Mapping[Address, bool]:
    """The pods that may be picked, and whether each is named."""
    (steer,) = side.crew.wanted.values()
    return {pod.address: index not in steer.moving for index, pod in enumerate(steer.backends)}


async def test_if_the_kernel_refuses_a_change_nobody_is_sent_to_another_pod(side: ControlSide) -> None:
    await side.apply(snapshot(service(path=Path.STEERED), pods=(POD1, POD2)))
    assert told(side) == {POD1: True, POD2: True}
    side.kernel.errors["apply"] = NetfilterError("busy")
    with pytest.raises(NetfilterError):
        await side.apply(snapshot(service(path=Path.STEERED), pods=(POD2, POD3)))
    assert told(side) == {POD2: False, POD3: False}
    side.kernel.errors.clear()
    await side.again()
    assert told(side) == {POD2: True, POD3: True}
    assert PoolName.of(WEB) in side.crew.wanted


async def test_where_the_kernel_has_sent_clients_is_known_by_pool(side: ControlSide) -> None:
    web = replace(service(path=Path.STEERED), affinity=100.0)
    cart = service(CART, "10.3.0.2:80", path=Path.STEERED)
    assert await side.reconciler.steering.pins() == []
    await side.apply(snapshot(web, cart))
    side.kernel.kept = [
        Kept("10.0.9.1", tcp("10.3.0.1:80"), POD2, 70.0),
        Kept("10.0.9.2", tcp("10.3.0.1:80"), POD1, 101.0),
        Kept("10.0.9.1", tcp("10.3.0.2:80"), POD1, 50.0),
        Kept("10.0.9.1", tcp("10.3.0.9:80"), POD1, 50.0),
    ]
    (told,) = await side.reconciler.steering.pins()
    assert told.pool == PoolName.of(WEB)
    assert told.pins == (Pin("10.0.9.1", POD2, 30.0), Pin("10.0.9.2", POD1, 0.0))
    side.kernel.errors["pins"] = NetfilterError("busy")
    assert await side.reconciler.steering.pins() == []
