"""What is read of packets that wait in a queue: whatever they are, each can be answered."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.address import Address
from userproxy.model.flow_key import client_of, flow_key, frontend_key, frontend_of
from userproxy.model.service import Protocol
from userproxy.netfilter.queue.packets import Answers, packets_of
from userproxy.netfilter.wire.netlink import attribute

CLIENT, FRONTEND = Address("10.0.1.3", 40000), Address("10.3.241.152", 80)
CLIENT6, FRONTEND6 = Address("fd00::3", 40000), Address("fd00:3::152", 80)
SEQUENCE = 0xFEDCBA98
_HOP_BY_HOP, _FRAGMENT, _OPTIONS, _TCP, _UDP = 0, 44, 60, 6, 17
_NESTED = 0x8000


def message(packet: bytes, number: int = 7, mark: int | None = None, *, kind: int = 0x300) -> bytes:
    """A packet as the kernel brings it."""
    body = struct.pack(">BBH", 2, 0, 30064) + attribute(1, struct.pack(">IHB", number, 0x0800, 1))
    body += attribute(4, struct.pack(">I", 3))
    if mark is not None:
        body += attribute(3, struct.pack(">I", mark))
    body += attribute(10, packet)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def syn(client: Address = CLIENT, frontend: Address = FRONTEND) -> bytes:
    """A TCP header; its checksum is wrong."""
    return struct.pack(">HHIIBBHHH", client.port, frontend.port, SEQUENCE, 0, 5 << 4, 2, 64240, 0xBAD, 0)


def datagram() -> bytes:
    return struct.pack(">HHHH", CLIENT.port, FRONTEND.port, 8, 0)


def ipv4(payload: bytes, protocol: int = _TCP, options: bytes = b"", fragment: int = 0) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 0xFFFF, 1, fragment, 64, protocol, 0xBAD)
    ips = ipaddress.ip_address(CLIENT.ip).packed + ipaddress.ip_address(FRONTEND.ip).packed
    return header + ips + options + payload


def ipv6(payload: bytes, kind: int = _TCP) -> bytes:
    ips = ipaddress.ip_address(CLIENT6.ip).packed + ipaddress.ip_address(FRONTEND6.ip).packed
    return struct.pack(">IHBB", 6 << 28, len(payload), kind, 64) + ips + payload


TCP_FLOW = flow_key(Protocol.TCP, CLIENT, FRONTEND)


@pytest.mark.parametrize(
    ("packet", "flow", "sequence"),
    [
        (ipv4(syn()), TCP_FLOW, SEQUENCE),
        (ipv4(syn(), options=bytes(8)), TCP_FLOW, SEQUENCE),
        (ipv4(datagram() + bytes(12), _UDP), flow_key(Protocol.UDP, CLIENT, FRONTEND), 0),
        (ipv6(syn()), flow_key(Protocol.TCP, CLIENT6, FRONTEND6), SEQUENCE),
        (
            ipv6(bytes([_TCP, 0, *bytes(6)]) + syn(), _HOP_BY_HOP),
            flow_key(Protocol.TCP, CLIENT6, FRONTEND6),
            SEQUENCE,
        ),
        (
            ipv6(bytes([_OPTIONS, 0, *bytes(6), _TCP, 1, *bytes(14)]) + syn(), _HOP_BY_HOP),
            flow_key(Protocol.TCP, CLIENT6, FRONTEND6),
            SEQUENCE,
        ),
    ],
    ids=["tcp", "with options", "udp", "IPv6", "with an extension", "with several"],
)
def test_whose_connection_a_packet_begins_is_read(packet: bytes, flow: bytes, sequence: int) -> None:
    (found,) = packets_of(message(packet, number=9, mark=0x4000))
    assert found == (9, 0x4000, flow, sequence)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        ipv4(syn()[:12]),
        ipv4(syn(), fragment=0x2000),
        ipv4(syn(), fragment=3),
        ipv4(syn(), protocol=132),
        b"\x41" + ipv4(syn())[1:],
        b"\x75" + ipv4(syn())[1:],
        ipv4(datagram()[:4], _UDP),
        ipv4(b"", options=bytes(40)),
        ipv6(syn())[:39],
        ipv6(bytes([_TCP, 0, 0, 1, *bytes(4)]) + syn(), _FRAGMENT),
        ipv6(bytes([_TCP, 255, *bytes(6)]) + syn(), _HOP_BY_HOP),
        ipv6(b"\0", _HOP_BY_HOP),
    ],
)
def test_one_that_tells_nothing_of_a_connection_has_no_flow_and_can_be_answered(packet: bytes) -> None:
    (found,) = packets_of(message(packet, number=9))
    assert (found.id, found.flow) == (9, b"")


@given(st.binary(max_size=120), st.sampled_from([b"\x45", b"\x4f", b"\x60", b""]))
def test_any_bytes_at_all_can_be_answered(rest: bytes, first: bytes) -> None:
    (found,) = packets_of(message(first + rest, number=1))
    assert found.id == 1


@given(st.data())
def test_a_message_cut_anywhere_is_no_harm(data: st.DataObject) -> None:
    whole = message(ipv4(syn()), 1) + message(ipv4(syn()), 2)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    assert [packet.id for packet in packets_of(cut)] in ([], [1], [1, 2])


def test_several_in_one_datagram_and_what_is_no_packet_between_them() -> None:
    refusal = message(b"", 5, kind=2)
    data = message(ipv4(syn()), 1) + refusal + message(ipv4(syn()), 2)
    assert [packet.id for packet in packets_of(data)] == [1, 2]


def test_what_stands_behind_a_message_is_none_of_its_attributes() -> None:
    body = struct.pack(">BBH", 2, 0, 30064) + attribute(1, struct.pack(">IHB", 9, 0x0800, 1))
    short = struct.pack("=IHHII", 16 + len(body), 0x300, 0, 0, 0) + body
    (found, _) = packets_of(short + message(ipv4(syn()), 2, mark=5))
    assert found == (9, 0, b"", 0)


def test_flags_of_an_attribute_are_no_part_of_its_kind() -> None:
    body = struct.pack(">BBH", 2, 0, 30064) + attribute(1 | _NESTED, struct.pack(">IHB", 9, 0x0800, 1))
    body += attribute(10 | _NESTED, ipv4(syn()))
    (found,) = packets_of(struct.pack("=IHHII", 16 + len(body), 0x300, 0, 0, 0) + body)
    assert (found.id, found.flow) == (9, TCP_FLOW)


def test_an_answer_is_what_the_kernel_reads() -> None:
    answers = Answers(30064)
    assert answers.accept(7, 0x2001) == (
        struct.pack("=IHHII", 40, 0x301, 1, 0, 0)
        + struct.pack(">BBH", 0, 0, 30064)
        + attribute(2, struct.pack(">II", 1, 7))
        + attribute(3, struct.pack(">I", 0x2001))
    )
    assert attribute(2, struct.pack(">II", 0, 8)) in answers.drop(8)


@pytest.mark.parametrize(("client", "frontend"), [(CLIENT, FRONTEND), (CLIENT6, FRONTEND6)])
def test_a_connections_key_tells_its_client_and_its_frontend(client: Address, frontend: Address) -> None:
    flow = flow_key(Protocol.UDP, client, frontend)
    assert client_of(flow) == client.ip
    assert frontend_of(flow) == frontend_key(Protocol.UDP, frontend)
