"""What the kernel is asked about one connection, and what is read of its answer, as bytes."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, cast

import pytest

from userproxy.model.carried import Counts
from userproxy.model.flow_key import flow_key
from userproxy.model.service import Protocol
from userproxy.netfilter.conntrack import entry
from userproxy.netfilter.conntrack.entry import Direction
from userproxy.netfilter.conntrack.heard import TcpState
from userproxy.netfilter.conntrack.single import Conntrack, Single, original_of
from userproxy.netfilter.wire.netlink import Message, Refusal, RefusedError
from userproxy.tests.netfilter.test_heard import (
    ASSURED,
    CLIENT,
    CLIENT6,
    DNAT,
    FRONTEND,
    FRONTEND6,
    SEEN_REPLY,
)
from userproxy.tests.netfilter.test_heard import body as listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.model.address import Address
    from userproxy.netfilter.wire.netlink import Socket

ESTABLISHED = 3
FLOW = flow_key(Protocol.TCP, CLIENT, FRONTEND)


class Kernel:
    """The socket of one who asks conntrack: the kernel knows of one connection, of none, or does not say.

    Attributes:
        asked: the messages.
        body: of its answer.
        error: the errno that it refuses with.
    """

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.body = b""
        self.error = 0
        self.protocol = -1
        self.is_open = True

    def connect(self, protocol: int) -> Socket:
        """Instead of a netlink socket."""
        self.protocol = protocol
        return cast("Socket", self)

    def get(self, message: Message) -> bytes:
        """Of `Socket`."""
        self.asked.append(message)
        if self.error:
            raise RefusedError(Refusal(self.error, "", 0), message.what)
        return self.body

    def get_each(self, messages: Sequence[Message]) -> list[bytes | None]:
        """Of `Socket`: it knows of every other one."""
        self.asked += messages
        return [None if number % 2 else self.body for number, _ in enumerate(messages)]

    def request(self, messages: Sequence[Message]) -> list[Refusal]:
        """Of `Socket`."""
        self.asked += messages
        return [Refusal(self.error, "", 0)] if self.error else []

    def close(self) -> None:
        """Of `Socket`."""
        self.is_open = False


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def conntrack(kernel: Kernel) -> Conntrack:
    return Conntrack(kernel.connect)


@pytest.mark.parametrize(
    ("family", "client", "frontend"),
    [(socket.AF_INET, CLIENT, FRONTEND), (socket.AF_INET6, CLIENT6, FRONTEND6)],
    ids=["IPv4", "IPv6"],
)
@pytest.mark.parametrize("protocol", Protocol)
def test_it_asks_for_the_one_that_a_packet_begins(
    kernel: Kernel,
    conntrack: Conntrack,
    protocol: Protocol,
    family: socket.AddressFamily,
    client: Address,
    frontend: Address,
) -> None:
    conntrack.find(flow_key(protocol, client, frontend))
    (asked,) = kernel.asked
    assert asked == entry.lookup(Direction(protocol, client, frontend))  # packed by other code
    assert asked.body[:4] == struct.pack(">BBH", family, 0, 0)
    assert (asked.kind, kernel.protocol) == (0x101, entry.NETLINK_NETFILTER)


@pytest.mark.parametrize("protocol", Protocol)
def test_it_has_that_very_one_forgotten(kernel: Kernel, conntrack: Conntrack, protocol: Protocol) -> None:
    conntrack.forget(flow_key(protocol, CLIENT6, FRONTEND6))
    (asked,) = kernel.asked
    assert asked.kind == 0x102
    assert entry.direction(original_of(flow_key(protocol, CLIENT6, FRONTEND6))) == Direction(
        protocol, CLIENT6, FRONTEND6
    )
    assert asked.body == entry.lookup(Direction(protocol, CLIENT6, FRONTEND6)).body


@pytest.mark.parametrize(
    ("status", "state", "found"),
    [
        (DNAT, 1, Single(answered=False, over=False)),
        (DNAT | SEEN_REPLY, TcpState.SYN_RECV, Single(answered=True, over=False)),
        (DNAT | SEEN_REPLY | ASSURED, ESTABLISHED, Single(answered=True, over=False)),
        (DNAT | SEEN_REPLY | ASSURED, TcpState.TIME_WAIT, Single(answered=True, over=True)),
        (DNAT | SEEN_REPLY, TcpState.CLOSE, Single(answered=True, over=True)),
    ],
    ids=["SYN_SENT", "SYN_RECV", "ESTABLISHED", "TIME_WAIT", "CLOSE"],
)
def test_whether_it_was_answered_and_is_over_is_read(
    kernel: Kernel, conntrack: Conntrack, status: int, state: int, found: Single
) -> None:
    kernel.body = listed(status, state)
    assert conntrack.find(FLOW) == found


def test_udp_has_no_state_and_is_never_over(kernel: Kernel, conntrack: Conntrack) -> None:
    kernel.body = listed(DNAT | SEEN_REPLY, protocol=Protocol.UDP)
    assert conntrack.find(flow_key(Protocol.UDP, CLIENT, FRONTEND)) == Single(answered=True, over=False)


def test_what_conntrack_does_not_know_is_no_error(kernel: Kernel, conntrack: Conntrack) -> None:
    kernel.error = errno.ENOENT
    assert conntrack.find(FLOW) is None
    conntrack.forget(FLOW)


def test_any_other_refusal_is_one(kernel: Kernel, conntrack: Conntrack) -> None:
    kernel.error = errno.EPERM
    with pytest.raises(RefusedError, match="conntrack entry"):
        conntrack.find(FLOW)


def test_its_socket_is_given_back(kernel: Kernel, conntrack: Conntrack) -> None:
    conntrack.close()
    assert not kernel.is_open


def test_what_many_have_carried_is_asked_at_once(kernel: Kernel, conntrack: Conntrack) -> None:
    kernel.body = listed(DNAT | SEEN_REPLY, TcpState.TIME_WAIT, counts=(5, 400, 4, 300))
    assert conntrack.counts([FLOW, FLOW, FLOW]) == [
        (7, Counts(5, 400, 4, 300)),
        None,
        (7, Counts(5, 400, 4, 300)),
    ]
    assert [one.body for one in kernel.asked] == [
        entry.lookup(Direction(Protocol.TCP, CLIENT, FRONTEND)).body
    ] * 3
    kernel.body = listed(DNAT | SEEN_REPLY, TcpState.TIME_WAIT)
    assert conntrack.counts([FLOW]) == [None], "it began before the kernel counted"
