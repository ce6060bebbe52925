"""What is read of conntrack's messages, as the kernel lays them out."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.address import Address
from userproxy.model.carried import Counts, End, How
from userproxy.model.flow_key import flow_key
from userproxy.model.service import Protocol
from userproxy.netfilter.conntrack.heard import Heard, TcpState, Told, heard, listed_one
from userproxy.netfilter.wire.netlink import NLM_F_CREATE, attribute

CLIENT, FRONTEND, POD = Address("10.0.1.3", 40000), Address("10.3.241.152", 80), Address("10.0.2.2", 8080)
CLIENT6, FRONTEND6, POD6 = Address("fd00::3", 40000), Address("fd00:3::152", 80), Address("fd00::2:2", 8080)
NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}
NESTED = 0x8000
NEW, DELETED = 0x100, 0x102
SEEN_REPLY, ASSURED, DNAT = 1 << 1, 1 << 2, 1 << 5
CLOSE_INIT = 0x04


def direction(kind: int, protocol: Protocol, source: Address, destination: Address) -> bytes:
    ips = [ipaddress.ip_address(each.ip).packed for each in (source, destination)]
    first = 1 if len(ips[0]) == 4 else 3
    ports = [each.port.to_bytes(2, "big") for each in (source, destination)]
    return attribute(
        kind | NESTED,
        attribute(1 | NESTED, attribute(first, ips[0]) + attribute(first + 1, ips[1]))
        + attribute(
            2 | NESTED,
            attribute(1, bytes([NUMBERS[protocol]])) + attribute(2, ports[0]) + attribute(3, ports[1]),
        ),
    )


def body(
    status: int,
    state: int = 0,
    protocol: Protocol = Protocol.TCP,
    ends: tuple[Address, ...] = (CLIENT, FRONTEND, POD),
    *,
    flags: int | None = None,
    counts: tuple[int, int, int, int] | None = None,
) -> bytes:
    """An entry.

    Args:
        status: its status.
        state: of TCP; 0: that is not told.
        protocol: that it speaks.
        ends: client, frontend, pod, and perhaps the client as the pod sees it.
        flags: of TCP, of the client's direction.
        counts: packets and bytes from the client, then from the pod.
    """
    client, frontend, pod, *seen = ends
    family = 2 if "." in client.ip else 10
    tcp = attribute(1, bytes([state]))
    if flags is not None:
        tcp += attribute(2, b"\7") + attribute(3, b"\7")
        tcp += attribute(4, bytes([flags, 0])) + attribute(5, bytes([0, 0]))
    info = attribute(4 | NESTED, attribute(1 | NESTED, tcp)) if state else b""
    if counts is not None:
        up, down = (
            attribute(1, each[0].to_bytes(8)) + attribute(2, each[1].to_bytes(8))
            for each in (counts[:2], counts[2:])
        )
        info = attribute(9 | NESTED, up) + attribute(10 | NESTED, down) + info
    return (
        struct.pack(">BBH", family, 0, 0)
        + direction(1, protocol, client, frontend)
        + direction(2, protocol, pod, seen[0] if seen else client)
        + attribute(12, struct.pack(">I", 7))
        + attribute(3, struct.pack(">I", status))
        + info
    )


def message(content: bytes, kind: int = NEW, flags: int = 0, port: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(content), kind, flags, 0, port) + content


def told(content: bytes, kind: int = NEW, flags: int = 0) -> Told | None:
    found = heard(message(content, kind, flags))
    return found[0].told if found else None


@pytest.mark.parametrize("ends", [(CLIENT, FRONTEND, POD), (CLIENT6, FRONTEND6, POD6)])
@pytest.mark.parametrize("protocol", Protocol)
def test_a_new_connection_has_its_key_and_its_pod(
    protocol: Protocol, ends: tuple[Address, Address, Address]
) -> None:
    found = heard(message(body(DNAT, 1, protocol, ends), flags=NLM_F_CREATE))
    assert found == [Heard(Told.NEW, flow_key(protocol, ends[0], ends[1]), ends[2])]


def test_an_answer_and_an_orderly_end() -> None:
    assert told(body(DNAT | SEEN_REPLY, TcpState.SYN_RECV)) is Told.ANSWERED
    assert told(body(DNAT | SEEN_REPLY | ASSURED, TcpState.TIME_WAIT)) is Told.OVER
    assert told(body(DNAT | SEEN_REPLY | ASSURED, TcpState.CLOSE)) is Told.OVER
    assert told(body(DNAT | SEEN_REPLY), DELETED) is Told.OVER


@pytest.mark.parametrize(
    ("whole", "how"),
    [
        (message(body(DNAT | SEEN_REPLY | ASSURED, TcpState.TIME_WAIT, flags=CLOSE_INIT)), How.CLIENT_FIRST),
        (message(body(DNAT | SEEN_REPLY | ASSURED, TcpState.TIME_WAIT, flags=0x1B)), How.BACKEND_FIRST),
        (message(body(DNAT | SEEN_REPLY | ASSURED, TcpState.CLOSE)), How.RESET),
        (message(body(DNAT | SEEN_REPLY | ASSURED, 3), DELETED), How.EXPIRED),
        (message(body(DNAT | SEEN_REPLY | ASSURED, 3), DELETED, port=4711), How.DELETED),
        (message(body(DNAT | SEEN_REPLY, TcpState.CLOSE), DELETED, port=4711), How.DELETED),
        (message(body(DNAT | SEEN_REPLY, 0, Protocol.UDP), DELETED), How.EXPIRED),
    ],
)
def test_how_it_ended_is_read(whole: bytes, how: How) -> None:
    (one,) = heard(whole)
    assert (one.told, one.end) == (Told.OVER, End(how, 7))


@pytest.mark.parametrize("ends", [(CLIENT, FRONTEND, POD), (CLIENT6, FRONTEND6, POD6)])
def test_what_it_carried_and_whom_the_pod_saw_is_read(ends: tuple[Address, Address, Address]) -> None:
    seen = Address(ends[0].ip, 50_000)
    content = body(DNAT | SEEN_REPLY, 3, Protocol.TCP, (*ends, seen), counts=(5, 400, 4, 300))
    (one,) = heard(message(content, DELETED))
    assert one.end == End(How.EXPIRED, 7, seen, Counts(5, 400, 4, 300))


def test_one_that_reached_nobody_has_failed() -> None:
    assert told(body(DNAT), DELETED) is Told.FAILED


def test_a_reset_for_the_first_answer_is_a_refusal() -> None:
    """Conntrack forgets such an entry at once; it has seen a reply by then."""
    assert told(body(DNAT | SEEN_REPLY, TcpState.CLOSE), DELETED) is Told.FAILED


def test_a_client_that_resets_it_in_the_midst_of_the_handshake_says_nothing_of_the_pod() -> None:
    assert told(body(DNAT | SEEN_REPLY, TcpState.CLOSE)) is Told.OVER


def test_several_messages_are_read_in_their_order() -> None:
    data = message(body(DNAT, 1), flags=NLM_F_CREATE) + message(body(DNAT | SEEN_REPLY), DELETED)
    assert [each.told for each in heard(data)] == [Told.NEW, Told.OVER]


def test_a_list_has_those_that_live() -> None:
    flow = flow_key(Protocol.TCP, CLIENT, FRONTEND)
    assert listed_one(body(DNAT | SEEN_REPLY, 3)) == Heard(Told.ANSWERED, flow, POD)
    assert listed_one(body(DNAT, 1)) == Heard(Told.NEW, flow, POD)
    assert listed_one(body(DNAT | SEEN_REPLY, TcpState.TIME_WAIT)) is None
    assert listed_one(body(SEEN_REPLY, 3)) is None  # translated by nobody


def test_a_message_may_be_cut_at_any_byte() -> None:
    whole = body(DNAT | SEEN_REPLY, TcpState.CLOSE)
    for length in range(len(whole)):
        heard(message(whole[:length]))
        listed_one(whole[:length])


@given(st.binary(max_size=300), st.integers(0, 200))
def test_whatever_comes_is_read_without_an_error(noise: bytes, cut: int) -> None:
    whole = message(body(DNAT | SEEN_REPLY, TcpState.CLOSE), DELETED)
    heard(noise)
    heard(whole[:cut])
    heard(message(noise))
    listed_one(noise)
    listed_one(body(DNAT)[:cut])
