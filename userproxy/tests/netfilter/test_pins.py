"""What the kernel has noted of clients with affinity."""

from __future__ import annotations

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend
from userproxy.netfilter.elements.element import ClientPin
from userproxy.netfilter.elements.packing import packing_of
from userproxy.netfilter.elements.pins import Kept, kept_by


def pin(name: str, client: str, frontend: Frontend, pod: Address, left: int) -> ClientPin:
    """As it is read."""
    packing = packing_of(client)
    key = packing.ip(client) + packing.frontend(frontend)
    return ClientPin(name, key, packing.address(pod), 100_000, left)


def test_it_is_read_by_family_and_by_where_packets_come_from() -> None:
    vip, vip6 = Address("10.3.0.1", 80), Address("fd00:3::1", 53)
    pod, pod6 = Address("10.0.1.2", 8080), Address("fd00:1::2", 8053)
    inside, outside = (Frontend(Protocol.TCP, vip, outside=each) for each in (False, True))
    dns = Frontend(Protocol.UDP, vip6)
    pins = [
        pin("affinity4", "10.0.9.1", inside, pod, 70_000),
        pin("outside-affinity4", "10.0.9.2", inside, pod, 500),
        pin("affinity6", "fd00:9::1", dns, pod6, 1000),
    ]
    assert kept_by(pins) == [
        Kept("10.0.9.1", inside, pod, 70.0),
        Kept("10.0.9.2", outside, pod, 0.5),
        Kept("fd00:9::1", dns, pod6, 1.0),
    ]


def test_what_is_no_frontend_is_left_out() -> None:
    frontend = Frontend(Protocol.TCP, Address("10.3.0.1", 80))
    made = pin("affinity4", "10.0.9.1", frontend, Address("10.0.1.2", 8080), 1000)
    packing = packing_of("10.0.9.1")
    key = made.key.replace(packing.frontend(frontend), packing.frontend(frontend).replace(b"\6", b"\x84", 1))
    assert kept_by([made._replace(key=key)]) == []
