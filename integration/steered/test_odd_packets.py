"""First packets as no kernel of ours would send them: with options, in pieces, with a wrong checksum."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.servers import serving, udp_client
from integration.redirect_to_pod.services import service, udp
from integration.services import published
from integration.sockets import inside
from userproxy.lab.topology import CLIENT, SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.netfilter.ending.probes import Flags, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

PORT = 7300
PODS = [Address(SERVER1.ip, PORT), Address(SERVER2.ip, PORT)]
SYN_ACK = Flags.SYN | Flags.ACK
AT_ONCE_SECONDS = 0.4
IP_BYTES, NO_OPERATION = 20, b"\1"
MORE = 0x2000


@pytest.fixture
def frontend(lab: Lab) -> Iterator[Address]:
    """A Service with two pods."""
    with serving(lab, ["server1", "server2"], PORT), published(lab, "odd", "10.3.242.30", PODS) as made:
        yield made


class Client:
    """Sends packets of its own making, and sees what the Service answers; its kernel resets what it is."""

    _ports = itertools.count(21000)

    def __init__(self, lab: Lab, frontend: Address) -> None:
        self.frontend = frontend
        with inside(lab, "client"):
            self.sends = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self.hears = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)

    def close(self) -> None:
        """The end."""
        self.sends.close()
        self.hears.close()

    def syn(self) -> tuple[int, bytes]:
        """A SYN, and the port that it is from."""
        source = Address(CLIENT.ip, next(self._ports))
        return source.port, Segment(source, self.frontend, Flags.SYN, 77, 0).packed()

    def send(self, *packets: bytes) -> None:
        """All of them."""
        for each in packets:
            self.sends.sendto(each, (self.frontend.ip, 0))

    def answer(self, port: int) -> int | None:
        """The flags of the first answer; None if there is none."""
        while select.select([self.hears], [], [], AT_ONCE_SECONDS)[0]:
            packet = self.hears.recv(1500)
            tcp = packet[(packet[0] & 15) * 4 :]
            source, destination = struct.unpack(">HH", tcp[:4])
            if (source, destination) == (self.frontend.port, port):
                return tcp[13] & 0x3F
        return None


def in_pieces(packet: bytes, size: int) -> list[bytes]:
    """A packet cut into fragments of so many bytes."""
    header, rest = packet[:IP_BYTES], packet[IP_BYTES:]
    found = []
    for at in range(0, len(rest), size):
        part = rest[at : at + size]
        offset = at // 8 | (MORE if at + size < len(rest) else 0)
        found.append(header[:4] + struct.pack(">HH", 4711, offset) + header[8:] + part)
    return found


def test_options_and_fragments_are_as_good_as_any(lab: Lab, frontend: Address) -> None:
    with contextlib.closing(Client(lab, frontend)) as client:
        port, packet = client.syn()
        client.send(bytes([0x46]) + packet[1:IP_BYTES] + NO_OPERATION * 4 + packet[IP_BYTES:])
        assert client.answer(port) == SYN_ACK
        port, packet = client.syn()
        client.send(*in_pieces(packet, 16))
        assert client.answer(port) == SYN_ACK


def test_a_datagram_in_fragments_is_as_good_as_any(lab: Lab) -> None:
    ip, ports = "10.3.242.31", [udp(53, PORT)]
    with (
        serving(lab, ["server2"], PORT),
        service(lab, "odd-udp", ip, ports, ["server2"], path="steered"),
        udp_client(lab, "client", Address(ip, 53)) as client,
    ):
        client.send(bytes(4000))
        assert client.recv(100).startswith(f"server2:{PORT} ".encode())


def test_with_a_wrong_checksum_nobody_answers_and_no_pod_is_blamed(lab: Lab, frontend: Address) -> None:
    with contextlib.closing(Client(lab, frontend)) as client:
        packets = [client.syn() for _ in range(6)]
        wrong = [packet[:-4] + b"\0\0" + packet[-2:] for _, packet in packets]
        client.send(*wrong)
        assert [client.answer(port) for port, _ in packets[:1]] == [None]
        client.send(*wrong)
        time.sleep(AT_ONCE_SECONDS)
        states = [row["state"] for row in lab.rows("host1", "backends") if row["service"] == "default/odd"]
        assert states == ["up", "up"]
