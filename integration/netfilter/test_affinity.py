"""On the path redirect-to-pod, the kernel itself remembers which pod a client keeps."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from integration.netfilter.node import NODE_PORT, OUTSIDE_IP, PERIMETER, SERVER1, SERVER2, VIP
from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, Refuse, ToPods
from userproxy.netfilter.elements.element import ClientPin
from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.ruleset.sets import MOST_PINS
from userproxy.netfilter.wire import packing, read_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netfilter.node import Node

TCP, UDP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
ON_THE_HOST = Address("10.100.0.2", 8081)
BOTH = ToPods((SERVER1, SERVER2), affinity=60.0)
TIMES = 12
"""Without affinity, so many connections all go to the same one of two pods once in 2,000 runs."""


@pytest.fixture
def node(node: Node) -> Iterator[Node]:
    """The node, with servers in both pods and on the host."""
    node.default_route()
    with contextlib.ExitStack() as stack:
        for member, address in (("server1", SERVER1), ("server2", SERVER2), ("host", ON_THE_HOST)):
            stack.enter_context(node.serving(member, address, member))
        yield node


def pods_of(node: Node, asker: str, address: Address = VIP) -> set[str]:
    return {node.ask(asker, address).split()[0] for _ in range(TIMES)}


def pins(nftables: Nftables, *maps: str) -> list[ClientPin]:
    return list(read_back.read_pins(nftables._socket, maps or ("affinity4",)))  # noqa: SLF001 - rules made them


def left(nftables: Nftables) -> float:
    (pin,) = pins(nftables)
    return pin.left / 1000


@pytest.mark.parametrize("asker", ["server2", "host", "outside"])
def test_a_client_keeps_its_pod(node: Node, nftables: Nftables, asker: str) -> None:
    nftables.apply(CaptureChange(put={TCP: BOTH, UDP: BOTH}))
    assert len(pods_of(node, asker)) == 1
    assert len({node.ask_udp(asker).split()[0] for _ in range(TIMES)}) == 1
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, affinity=None)}))
    assert pods_of(node, asker) == {"server1", "server2"}, "at once, when it is switched off"
    assert len(pins(nftables)) == 1, "and the frontend's pins are gone"


def test_who_comes_from_outside_keeps_a_pod_of_its_own_frontend(node: Node, nftables: Nftables) -> None:
    everybody = Frontend(Protocol.TCP, NODE_PORT)
    outside = replace(everybody, outside=True)
    nftables.apply(CaptureChange(put={everybody: ToPods((SERVER1,)), outside: BOTH}, perimeter=PERIMETER))
    (kept,) = pods_of(node, "outside", NODE_PORT)
    assert [pin.key[:4] for pin in pins(nftables, "outside-affinity4")] == [
        bytes(map(int, OUTSIDE_IP.split(".")))
    ]
    assert not pins(nftables)
    other = SERVER2 if kept == "server1" else SERVER1
    nftables.apply(CaptureChange(put={outside: replace(BOTH, pods=(other,))}))
    assert pods_of(node, "outside", NODE_PORT) == {"server1", "server2"} - {kept}


def test_a_pod_on_the_host_is_kept_too(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: ToPods((ON_THE_HOST, SERVER2), affinity=60.0)}))
    for asker in ("server1", "outside", "host"):
        assert len(pods_of(node, asker)) == 1
    assert len(pins(nftables)) == 3


def test_a_client_moves_once_when_its_pod_has_gone(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: BOTH}))
    (kept,) = pods_of(node, "outside")
    gone, stays = (SERVER1, SERVER2) if kept == "server1" else (SERVER2, SERVER1)
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, pods=(stays,))}))
    assert pins(nftables) == []
    (moved,) = pods_of(node, "outside")
    assert moved != kept
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, pods=(gone, stays))}))
    assert pods_of(node, "outside") == {moved}, "a pod that comes back does not get its clients back"
    nftables.apply(CaptureChange(put={TCP: Refuse()}))
    assert pins(nftables) == []
    assert nftables.verify() == ()


def test_the_time_begins_anew_with_each_connection_and_ends(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, affinity=2.0)}))
    (kept,) = pods_of(node, "outside")
    for _ in range(4):
        time.sleep(0.8)
        assert node.ask("outside").split()[0] == kept
    seen = set()
    for _ in range(20):
        time.sleep(2.1)
        seen.add(node.ask("outside").split()[0])
        if len(seen) == 2:
            return
    raise AssertionError(f"{seen} alone after 20 times that were over")


def test_another_time_holds_at_once(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: BOTH}))
    (kept,) = pods_of(node, "outside")
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, affinity=3600.0)}))
    assert 3500 < left(nftables) <= 3600
    time.sleep(1.1)
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, affinity=30.0)}))
    assert 10 < left(nftables) < 29
    assert pods_of(node, "outside") == {kept}
    assert 29 < left(nftables) <= 30
    time.sleep(1.1)
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, affinity=1.0)}))
    assert pins(nftables) == [], "its last connection is longer ago"


def test_pins_outlive_the_daemon_and_a_table_that_had_to_be_replaced(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: BOTH}))
    (kept,) = pods_of(node, "outside")
    nftables.close()
    with node.inside("host"), Nftables() as successor:
        assert successor.ensure().captures == {TCP: BOTH}
        assert pods_of(node, "outside") == {kept}
    node.run("host", "nft", "flush chain inet userproxy capture4")
    with node.inside("host"), Nftables() as successor:
        successor.ensure()
        assert 50 < left(successor) <= 60
        assert pods_of(node, "outside") == {kept}


def test_a_new_daemon_forgets_pins_to_pods_of_the_past(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, pods=(SERVER1,))}))
    assert pods_of(node, "outside") == {"server1"}
    (pin,) = pins(nftables)
    past = pin._replace(key=bytes([10, 0, 9, 9]) + pin.key[4:], data=bytes([10, 0, 9, 9, 31, 144, 0, 0]))
    nftables._socket.batch(list(packing.add_pins([past])))  # noqa: SLF001 - as if it had been killed
    assert len(pins(nftables)) == 2
    nftables.close()
    with node.inside("host"), Nftables() as successor:
        successor.ensure()
        assert [each.key for each in pins(successor)] == [pin.key]
        assert successor.verify() == ()


def test_who_cannot_be_remembered_is_served_all_the_same(node: Node, nftables: Nftables) -> None:
    nftables.apply(CaptureChange(put={TCP: BOTH}))
    example = ClientPin("affinity4", b"", bytes(8), timeout=600_000, left=600_000)
    full = [example._replace(key=number.to_bytes(16, "big")) for number in range(MOST_PINS)]
    begun = time.perf_counter()
    for start in range(0, len(full), 16_384):
        nftables._socket.batch(list(packing.add_pins(full[start : start + 16_384])))  # noqa: SLF001
    print(f"{MOST_PINS} pins made: {(time.perf_counter() - begun) * 1000:.0f} ms")
    assert pods_of(node, "outside") == {"server1", "server2"}
    begun = time.perf_counter()
    nftables.apply(CaptureChange(put={TCP: replace(BOTH, affinity=None)}))
    print(f"a change of affinity with that many pins: {(time.perf_counter() - begun) * 1000:.0f} ms")
