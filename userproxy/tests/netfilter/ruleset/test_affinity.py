"""A client keeps its pod."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Perimeter, Target, ToPods
from userproxy.netfilter.trace.walk import Packet
from userproxy.tests.netfilter.ruleset.tracer import Kernel

VIP = Address("10.3.241.152", 80)
ONE, TWO, THREE = (Address(f"10.0.2.{host}", 8080) for host in (2, 3, 4))
TARGET = ToPods((ONE, TWO, THREE), affinity=10_800.0)
CLIENTS = ("10.0.1.3", "10.0.1.4")


def kernel(target: Target, *, outside: bool = False) -> Kernel:
    captures = {Frontend(Protocol.TCP, VIP, outside=outside): target}
    return Kernel(
        NodeState(captures=captures, perimeter=Perimeter(uplinks=("eth0",), inside=("10.0.2.0/24",)))
    )


def connect(
    asked: Kernel, source: str, draw: int, device: str = "cbr0", last: str = "postrouting"
) -> Address:
    asked.draw = draw
    packet = Packet(source=source, device=device, destination=VIP)
    return asked.send(packet, "prerouting", last)[1].destination


@pytest.mark.parametrize("last", ["postrouting", "input"])
@pytest.mark.parametrize(("outside", "device"), [(False, "cbr0"), (False, "eth0"), (True, "eth0")])
def test_a_client_keeps_its_pod(outside: bool, device: str, last: str) -> None:
    asked = kernel(TARGET, outside=outside)
    assert connect(asked, CLIENTS[0], 1, device, last) == TWO
    assert connect(asked, CLIENTS[1], 2, device, last) == THREE, "another client has another one"
    for draw in range(3):
        assert connect(asked, CLIENTS[0], draw, device, last) == TWO
        assert connect(asked, CLIENTS[1], draw, device, last) == THREE
    assert len(asked.elements("outside-affinity" if outside else "affinity")) == 2
    assert not asked.elements("affinity" if outside else "outside-affinity")


def test_without_affinity_nobody_is_pinned() -> None:
    asked = kernel(replace(TARGET, affinity=None))
    assert [connect(asked, CLIENTS[0], draw) for draw in range(3)] == [ONE, TWO, THREE]
    assert not asked.elements("affinity")


def test_nobody_is_pinned_to_a_pod_that_went_between_two_hooks() -> None:
    asked = kernel(TARGET)
    asked.elements("members").clear()
    assert connect(asked, CLIENTS[0], 1) == TWO
    assert not asked.elements("affinity")


def test_the_frontend_is_noted_as_used() -> None:
    asked = kernel(TARGET)
    connect(asked, CLIENTS[0], 0)
    assert len(asked.elements("used")) == 1
