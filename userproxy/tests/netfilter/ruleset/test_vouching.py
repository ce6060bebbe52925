"""A worker vouches for a client, and its next connection comes from there; nothing else does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.heartbeat import mark_of
from userproxy.model.state import NodeState
from userproxy.model.vouching import RETRACT_PORT, VOUCH_MARK, VOUCH_PORT
from userproxy.netfilter.ruleset.chains import STATE_ESTABLISHED
from userproxy.netfilter.trace.walk import Packet
from userproxy.tests.netfilter.ruleset.tracer import Kernel

NODE, CLIENT, OTHER, POD = "10.100.0.2", "10.0.1.3", "192.0.2.7", Address("10.0.2.2", 8080)
WORKER, NEIGHBOUR = 60600, 60601
TCP, UDP = 6, 17
SYN = Packet(source=NODE, destination=POD, protocol=TCP, user=WORKER)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(NodeState(workers=1))


def say(kernel: Kernel, client: str, port: int, user: int = WORKER, mark: int = VOUCH_MARK) -> str:
    """A datagram; returns the verdict."""
    packet = Packet(source=NODE, destination=Address(client, port), protocol=UDP, user=user, mark=mark)
    return kernel.send(packet, "output")[0]


def given(kernel: Kernel, packet: Packet) -> bool:
    """Whether the packet is given the source that was noted."""
    kernel.steps.clear()
    kernel.send(packet, "postrouting")
    return any(step.chain == "keep-postrouting" for step in kernel.steps)


def test_the_next_connection_of_that_worker_is_the_clients(kernel: Kernel) -> None:
    assert not given(kernel, SYN)
    assert say(kernel, CLIENT, VOUCH_PORT) == "drop"
    assert given(kernel, SYN)
    assert len(kernel.elements("clients")) == 1


def test_nobody_elses_is(kernel: Kernel) -> None:
    say(kernel, CLIENT, VOUCH_PORT)
    assert not given(kernel, replace(SYN, user=NEIGHBOUR))
    assert not given(kernel, replace(SYN, protocol=UDP)), "what it sends by UDP"
    assert not given(kernel, replace(SYN, state=STATE_ESTABLISHED)), "what it has been connected to before"
    say(kernel, OTHER, VOUCH_PORT, user=NEIGHBOUR)
    assert len(kernel.elements("clients")) == 2


def test_what_was_said_last_counts(kernel: Kernel) -> None:
    say(kernel, CLIENT, VOUCH_PORT)
    before = dict(kernel.elements("clients"))
    say(kernel, OTHER, VOUCH_PORT)
    assert kernel.elements("clients").keys() == before.keys()
    assert kernel.elements("clients") != before


def test_it_is_taken_back_from_wherever(kernel: Kernel) -> None:
    say(kernel, CLIENT, VOUCH_PORT)
    assert say(kernel, "127.0.0.1", RETRACT_PORT) == "drop"
    assert not kernel.elements("clients")
    assert not given(kernel, SYN)
    assert say(kernel, CLIENT, RETRACT_PORT) == "drop", "nobody is there to forget"


@pytest.mark.parametrize("mark", [0, mark_of(0), 0x75702000, 0x4000])
def test_another_mark_vouches_for_nobody(kernel: Kernel, mark: int) -> None:
    say(kernel, CLIENT, VOUCH_PORT, mark=mark)
    assert not kernel.elements("clients")
