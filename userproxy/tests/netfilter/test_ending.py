"""What ends connections of the kernel: the segments, the rules, and what is concluded."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

import pytest

from userproxy.model.address import Address
from userproxy.model.heartbeat import MARK_BITS, MARKS
from userproxy.model.probing import PROBE_BITS, PROBE_MARK
from userproxy.model.vouching import VOUCH_BITS, VOUCH_MARK
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.ending import sender as module
from userproxy.netfilter.ending.ending import Ended, judged, probes_of
from userproxy.netfilter.ending.probes import Flags, Segment
from userproxy.netfilter.ending.rules import CLIENT, POD, ending_ruleset, key_of
from userproxy.netfilter.ending.sender import PROBES_A_SECOND, Sender
from userproxy.netfilter.ending.table import Ends
from userproxy.netfilter.ruleset.text import listed
from userproxy.tests.control.rig.node import POD1, POD2, flow

FLOWS = [flow("10.3.0.1:80", POD1, 1), flow("10.3.0.1:80", POD2, 2)]
ENDS = {(each.id, end): key_of(each, end) for each in FLOWS for end in (CLIENT, POD)}


def folded(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(("source", "destination"), [("10.0.1.3", "10.3.0.1"), ("fd00::3", "fd00:3::1")])
def test_a_segment_is_whole_in_either_family(source: str, destination: str) -> None:
    flags = Flags.SYN | Flags.ACK
    packet = Segment(Address(source, 80), Address(destination, 40000), flags, 7, 9).packed()
    ips = [ipaddress.ip_address(each).packed for each in (source, destination)]
    tcp = packet[-20:]
    assert struct.unpack(">HHIIBB", tcp[:14]) == (80, 40000, 7, 9, 0x50, flags)
    assert folded(b"".join(ips) + struct.pack(">II", 20, 6) + tcp) == 0xFFFF, "its checksum is right"
    header = packet[:-20]
    assert (len(header), header[-2 * len(ips[0]) :]) == (40 if ":" in source else 20, b"".join(ips))
    assert header[0] >> 4 == (6 if ":" in source else 4)


def test_a_segment_that_acknowledges_nothing_says_so() -> None:
    packet = Segment(Address("10.0.1.3", 1), Address("10.0.1.2", 2), Flags.SYN, 7, 9).packed()
    assert struct.unpack(">I", packet[28:32]) == (0,)


def test_each_end_is_asked_in_the_name_of_the_other_as_it_knows_it() -> None:
    (first, second) = probes_of(FLOWS[:1], ENDS.values(), opening=True)
    (one,) = FLOWS[:1]
    assert (first.source, first.destination) == (one.frontend.address, one.client)
    assert first.flags == Flags.SYN | Flags.ACK, "what conntrack lets pass to who opened it"
    assert (second.source, second.destination, second.flags) == (one.source, one.backend, Flags.SYN)
    left = list(probes_of(FLOWS, {ENDS[2, POD]}, opening=False))
    assert [(each.destination, each.flags) for each in left] == [(POD2, Flags.ACK)]


def test_a_connection_has_ended_when_both_ends_are_gone_or_have_been_reset() -> None:
    everybody = frozenset(ENDS.values())
    assert judged(FLOWS, Ends(everybody, frozenset())) == Ended(untouched=frozenset({1, 2}))
    one = Ends(everybody - {ENDS[1, CLIENT]}, frozenset({ENDS[2, POD]}))
    assert judged(FLOWS, one) == Ended(halves=frozenset({1, 2}))
    both = Ends(everybody - {ENDS[1, CLIENT], ENDS[1, POD]}, frozenset({ENDS[2, POD], ENDS[2, CLIENT]}))
    assert judged(FLOWS, both) == Ended(ended=frozenset({1, 2}))


def test_what_came_of_several_batches_is_put_together() -> None:
    done = Ended(frozenset({1})) | Ended(halves=frozenset({2}), problem="no route")
    assert done == Ended(frozenset({1}), frozenset({2}), frozenset(), "no route")


def test_an_entry_is_deleted_only_by_its_number() -> None:
    original = entry.Direction(FLOWS[0].frontend.protocol, FLOWS[0].client, FLOWS[0].frontend.address)
    fields = entry.fields_of(entry.end_of(original, 77).body)
    assert fields[entry.ID] == struct.pack(">I", 77)
    assert entry.direction(fields[entry.ORIGINAL]) == original


def test_no_other_datagram_of_ours_is_taken_for_a_probe() -> None:
    for mark, bits in ((MARKS, MARK_BITS), (VOUCH_MARK, VOUCH_BITS)):
        assert mark & PROBE_BITS != PROBE_MARK
        assert PROBE_MARK & bits != mark


def test_the_rules_look_at_nothing_but_tcp_and_spare_resets_of_their_own() -> None:
    text = listed(ending_ruleset())
    assert text.startswith("table inet userproxy-ending {")
    lines = [line.strip() for line in text.splitlines() if "@ending goto" in line]
    assert len(lines) == 4
    assert all(line.startswith("meta l4proto tcp ct state ") for line in lines)
    assert not any("related" in line for line in lines)


class Clock:
    """Time, which passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Of the module `time`."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Likewise."""
        self.now += seconds


class Raw:
    """A raw socket that has the kernel's leave, or has not."""

    def __init__(self, error: OSError | None = None) -> None:
        self.sent = 0
        self._error = error

    def __call__(self, *_: object) -> Raw:
        """Opened."""
        if isinstance(self._error, PermissionError):
            raise self._error
        return self

    def setsockopt(self, *_: object) -> None:
        """Of a socket."""

    def sendto(self, *_: object) -> None:
        """Likewise."""
        if self._error is not None:
            raise self._error
        self.sent += 1

    def close(self) -> None:
        """Likewise."""


SEGMENTS = [
    Segment(Address("10.3.0.1", 80), Address("10.0.1.3", port), Flags.ACK, 1, 1) for port in range(1000)
]


def test_so_many_probes_a_second_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, raw = Clock(), Raw()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(socket, "socket", raw)
    with Sender() as sender:
        sender.send(SEGMENTS)
    assert raw.sent == len(SEGMENTS)
    assert clock.now - 100.0 == pytest.approx(len(SEGMENTS) / PROBES_A_SECOND, rel=0.2)


def test_one_that_finds_no_way_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Raw(OSError(errno.ENETUNREACH, "Network is unreachable")))
    with Sender() as sender:
        sender.send(SEGMENTS[:3])
    assert sender.lacking == ""


def test_without_raw_sockets_nothing_is_sent_and_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", Raw(PermissionError(errno.EPERM, "Operation not permitted")))
    with Sender() as sender:
        sender.send(SEGMENTS[:3])
    assert sender.lacking == "CAP_NET_RAW is missing"
