"""What a heart says, and when."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from userproxy.model.counters import Counters
from userproxy.model.heartbeat import BEAT_PORT, BEAT_SECONDS, LEAVE_PORT, TIMEOUT_SECONDS
from userproxy.tests.sockets import VirtualTimers
from userproxy.worker import heart as module
from userproxy.worker.heart import CATCH_UP_SECONDS, Heart

if TYPE_CHECKING:
    from collections.abc import Iterator

BEAT, LEAVE = "beat", "leave"


class Listening:
    """A heart whose datagrams somebody gets, as no rule drops them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers = VirtualTimers()
        self._ears = {name: socket.socket(type=socket.SOCK_DGRAM) for name in (BEAT, LEAVE)}
        for name, ear in self._ears.items():
            ear.bind(("127.0.0.1", 0))
            ear.setblocking(False)  # noqa: FBT003 - takes no keyword
            monkeypatch.setattr(module, f"{name.upper()}_PORT", ear.getsockname()[1])
        self.counters, self.now = Counters(), 100.0
        sock = socket.socket(type=socket.SOCK_DGRAM)
        self.heart = Heart(self.timers.loop, sock, self.counters, lambda: self.now)

    def heard(self) -> list[str]:
        """What it has said since the last time."""
        found = []
        for name, ear in self._ears.items():
            while True:
                try:
                    ear.recv(1)
                except BlockingIOError:
                    break
                found.append(name)
        return found

    def close(self) -> None:
        """The end."""
        self.heart.stop(leave=False)
        for ear in self._ears.values():
            ear.close()


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    made = Listening(monkeypatch)
    yield made
    made.close()
    made.heart._sock.close()


def test_it_beats_at_once_and_again_and_again(listening: Listening) -> None:
    listening.heart.begin()
    assert listening.heard() == [BEAT]
    assert listening.timers.delays == [BEAT_SECONDS]
    for _ in range(3):
        listening.timers.tick()
        assert listening.heard() == [BEAT]


def test_who_hung_serves_those_who_have_come_before_it_beats_again(listening: Listening) -> None:
    listening.heart.begin()
    listening.heard()
    listening.now += TIMEOUT_SECONDS
    listening.timers.tick()
    assert listening.heard() == [BEAT], "late, and not too late"
    listening.now += TIMEOUT_SECONDS + 0.1
    listening.timers.tick()
    assert listening.heard() == []
    assert listening.timers.delays == [CATCH_UP_SECONDS]
    listening.now += CATCH_UP_SECONDS
    listening.timers.tick()
    assert listening.heard() == [BEAT]


def test_who_is_full_says_so_at_once_and_comes_back_with_the_next_beat(listening: Listening) -> None:
    listening.heart.begin()
    listening.heard()
    listening.heart.rest(rests=True)
    assert listening.heard() == [LEAVE]
    listening.heart.rest(rests=True)
    listening.timers.tick()
    assert listening.heard() == []
    listening.heart.rest(rests=False)
    assert listening.heard() == []
    listening.timers.tick()
    assert listening.heard() == [BEAT]


@pytest.mark.parametrize("leave", [False, True])
def test_when_it_stops_clients_go_elsewhere_unless_somebody_else_takes_them(
    listening: Listening, leave: bool
) -> None:
    listening.heart.begin()
    listening.heard()
    listening.heart.stop(leave=leave)
    assert listening.heard() == [LEAVE] * leave
    assert listening.timers.delays == []
    listening.heart.stop(leave=True)
    listening.heart.rest(rests=True)
    assert listening.heard() == []


def test_one_that_has_not_begun_says_nothing(listening: Listening) -> None:
    listening.heart.rest(rests=True)
    listening.heart.stop(leave=True)
    assert listening.heard() == []
    listening.heart.begin()
    assert listening.heard() == [], "it is full"


def test_that_a_rule_drops_a_datagram_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NOWHERE", "255.255.255.255")  # EACCES without SO_BROADCAST
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for port in (BEAT_PORT, LEAVE_PORT):
            module.send(sock, port)


def test_beats_are_counted_and_how_late_they_come(listening: Listening) -> None:
    listening.heart.begin()
    for _ in range(3):
        listening.timers.tick()
    counters = listening.counters
    assert counters.heartbeats == 4
    assert sum(counters.loop_lag["worker"].counts) == 3
