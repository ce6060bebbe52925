"""What the kernel says of its routes, to whoever asks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.net.ways import LOCAL, Ways

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ways() -> Iterator[Ways]:
    made = Ways()
    yield made
    made.close()


def test_an_address_of_this_host_is_told_as_such(ways: Ways) -> None:
    way = ways.to("127.0.0.1")
    assert way is not None
    assert (way.kind, way.device, way.direct) == (LOCAL, socket.if_nametoindex("lo"), True)
    assert ways.kind_of(way.device) == ""


def test_where_there_is_no_way_there_is_none(ways: Ways) -> None:
    way = ways.to("240.0.0.1") or ways.to("2001:db8::1")
    assert way is None or not way.direct, "only a gateway may know it"
    assert ways.kind_of(1 << 30) == ""


def test_one_question_does_not_get_the_answer_of_another(ways: Ways) -> None:
    answers = {ip: ways.to(ip) for ip in ("127.0.0.1", "127.0.0.2")}
    for _ in range(100):
        assert {ip: ways.to(ip) for ip in answers} == answers


def test_a_closed_one_has_no_answer() -> None:
    closed = Ways()
    closed.close()
    assert closed.to("127.0.0.1") is None
