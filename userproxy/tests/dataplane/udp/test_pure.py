"""The order of use, and what is kept of what nobody has answered."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from userproxy.dataplane.udp.sessions import Sessions
from userproxy.dataplane.udp.unanswered import MOST, RECENT_SECONDS, Room, Unanswered


class Used(NamedTuple):
    """A session as far as its order matters."""

    number: int
    peer: tuple[str, int]
    last_active: float = 0.0


def session(number: int) -> Used:
    return Used(number, ("10.0.1.3", number), float(number))


@given(st.lists(st.tuples(st.sampled_from(["add", "touch", "remove"]), st.integers(1, 8)), max_size=60))
def test_the_first_to_give_way_is_whoever_was_used_least_recently(steps: list[tuple[str, int]]) -> None:
    sessions: Sessions[str, Used] = Sessions(100)
    order: list[int] = []
    everybody = {number: session(number) for number in range(1, 9)}
    for step, number in steps:
        one, listener = everybody[number], "even" if number % 2 == 0 else "odd"
        if step == "add" and number not in order:
            sessions.add(listener, one)
            order.append(number)
        elif step == "touch" and number in order:
            sessions.touch(listener, one)
            order.remove(number)
            order.append(number)
        elif step == "remove":
            sessions.remove(listener, one)
            order = [each for each in order if each != number]
        oldest = sessions.oldest()
        assert (oldest.number if oldest else None) == (order[0] if order else None)
        for name, parity in (("even", 0), ("odd", 1)):
            mine = [each for each in order if each % 2 == parity]
            assert [each.number for each in sessions.all_of(name)] == mine
        assert len(sessions) == len(order)
    assert set(sessions.listeners) == {"even" if each % 2 == 0 else "odd" for each in order}


def test_idle_ones_are_found_without_looking_at_the_others() -> None:
    sessions: Sessions[str, Used] = Sessions(2)
    everybody = [session(number) for number in (1, 2, 3)]
    for one in everybody:
        sessions.add("x", one)
    assert sessions.is_full
    ended = []
    for one in sessions.idle("x", 2.0):
        sessions.remove("x", one)
        ended.append(one.number)
    assert ended == [1, 2]
    assert sessions.find("x", ("10.0.1.3", 3)) == session(3)
    assert sessions.find("y", ("10.0.1.3", 3)) is None


def test_what_was_sent_last_is_kept_until_it_is_answered_and_others_for_a_moment() -> None:
    room = Room()
    kept = Unanswered(room)
    kept.keep(b"old", 0.0)
    assert kept.all() == [b"old"]
    kept.keep(b"new", RECENT_SECONDS * 2)
    kept.keep(b"newer", RECENT_SECONDS * 2)
    assert kept.all() == [b"new", b"newer"]
    assert room.taken == 8
    kept.clear()
    assert (kept.all(), room.taken, bool(kept)) == ([], 0, False)


@given(st.lists(st.tuples(st.binary(max_size=9), st.floats(0.0, 1.0)), max_size=40))
def test_no_more_is_kept_than_there_is_room_for(sent: list[tuple[bytes, float]]) -> None:
    room = Room(20)
    sessions = [Unanswered(room), Unanswered(room)]
    now = 0.0
    for number, (datagram, pause) in enumerate(sent):
        now += pause
        sessions[number % 2].keep(datagram, now)
        kept = [each for one in sessions for each in one.all()]
        assert room.taken == sum(map(len, kept)) <= 20
        assert all(len(one.all()) <= MOST for one in sessions)
    for one in sessions:
        one.clear()
    assert room.taken == 0
