"""A connection too many is refused before it is sent anywhere; nobody else is asked."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Perimeter, ToPods
from userproxy.model.steering import chosen
from userproxy.netfilter.ruleset.chains import STATE_ESTABLISHED, STATUS_DNAT
from userproxy.netfilter.ruleset.vacancy import STATUS_CONFIRMED
from userproxy.netfilter.trace.walk import Packet
from userproxy.tests.netfilter.ruleset.tracer import Kernel
from userproxy.tests.twins import twin

VIP, POD = Address("10.3.241.152", 80), Address("10.0.1.2", 8080)
FRONTEND = Frontend(Protocol.TCP, VIP)
UDP = 17
FIRST = Packet(destination=VIP)
OUTSIDE = Packet(destination=VIP, source="10.100.0.9", device="eth0")
PERIMETER = Perimeter(uplinks=("eth0",), inside=("10.0.0.0/14", twin("10.0.0.0/14")), closed=False)


class Live(dict[tuple[str, bytes], int]):
    """How many connections live by what is asked, whatever the key.

    Args:
        of: by set, without its family.
    """

    def __init__(self, of: dict[str, int]) -> None:
        self._of = of

    def get(self, key: tuple[str, bytes], _default: int) -> int:  # type: ignore[override]
        """Of a dictionary."""
        return self._of[key[0][:-1]]


class Counting(Kernel):
    """Has so many connections counted, whoever asks."""

    def __init__(self, target: ToPods, *, of_frontend: int, of_client: int, outside: bool = False) -> None:
        captures = {
            replace(FRONTEND, outside=outside): target,
            Frontend(Protocol.UDP, VIP): target,
        }
        super().__init__(NodeState(captures=captures, perimeter=PERIMETER, queues=1))
        self.counts = Live({"counted": of_frontend, "counted-clients": of_client})


@pytest.mark.parametrize("hook", ["prerouting", "output"])
@pytest.mark.parametrize(
    ("of_frontend", "of_client", "goes_on"),
    [(4, 2, True), (5, 2, False), (4, 3, False), (5, 3, False)],
)
def test_one_too_many_is_refused_as_if_nobody_were_there(
    hook: str, of_frontend: int, of_client: int, goes_on: bool
) -> None:
    target = ToPods((POD,), most=5, most_per_client=3)
    walked = Counting(target, of_frontend=of_frontend, of_client=of_client)
    verdict, packet = walked.send(FIRST, hook)
    assert (verdict, packet.destination) == (("accept", POD) if goes_on else ("reject with tcp reset", VIP))
    verdict, packet = walked.send(replace(FIRST, protocol=UDP), hook)
    assert (verdict, packet.destination) == (("accept", POD) if goes_on else ("reject", VIP))


@pytest.mark.parametrize(("index", "goes_on"), [(None, False), (0, True)], ids=["unasked", "chosen"])
def test_whoever_chooses_keeps_the_limits_by_himself(index: int | None, goes_on: bool) -> None:
    target = ToPods((POD,), steered=True, most=5, most_per_client=3)
    walked = Counting(target, of_frontend=5, of_client=3)
    if index is not None:
        walked.answer = lambda packet: replace(packet, mark=chosen(packet.mark, index))
    assert (walked.send(FIRST, "prerouting")[0] == "accept") is goes_on


@pytest.mark.parametrize(
    ("target", "goes_on"),
    [
        (ToPods((POD,)), True),
        (ToPods((POD,), most=7), False),
        (ToPods((POD,), most=8), True),
        (ToPods((POD,), most_per_client=5), False),
        (ToPods((POD,), most_per_client=6), True),
    ],
)
def test_a_limit_that_nobody_has_set_refuses_nobody(target: ToPods, goes_on: bool) -> None:
    walked = Counting(target, of_frontend=7, of_client=5)
    assert (walked.send(FIRST, "prerouting")[0] == "accept") is goes_on


@pytest.mark.parametrize(
    "packet",
    [
        replace(FIRST, status=STATUS_CONFIRMED),
        replace(FIRST, state=STATE_ESTABLISHED, status=STATUS_CONFIRMED | STATUS_DNAT),
    ],
    ids=["a SYN that is sent again", "of an established connection"],
)
def test_what_conntrack_knows_already_is_none_too_many(packet: Packet) -> None:
    walked = Counting(ToPods((POD,), most=5, most_per_client=3), of_frontend=5, of_client=3)
    assert walked.send(packet, "prerouting")[0] == "accept"


def test_who_comes_from_outside_meets_the_limits_of_what_is_meant_for_outside() -> None:
    walked = Counting(ToPods((POD,), most=5), of_frontend=5, of_client=0, outside=True)
    assert walked.send(OUTSIDE, "prerouting")[0] == "reject with tcp reset"
    assert walked.send(FIRST, "prerouting")[0] == "accept"
