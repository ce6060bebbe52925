"""Two versions of a dictionary, compared where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.versioned import dropped, patched, touched

if TYPE_CHECKING:
    from collections.abc import Mapping

VALUES = [object() for _ in range(3)]
versions = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(VALUES))


@given(versions, versions)
def test_what_was_touched_and_what_was_dropped_leads_from_one_to_the_other(
    new: dict[str, object], old: dict[str, object]
) -> None:
    changed, gone = touched(new, old), dropped(new, old)
    assert {**{key: old[key] for key in old if key not in gone}, **{key: new[key] for key in changed}} == new
    assert all(old.get(key) is not new[key] for key in changed)
    assert all(key in old and key not in new for key in gone)


@given(versions, st.data())
def test_a_patched_copy_shows_what_was_patched(old: dict[str, object], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from("abcdef"))
    new = {**old, key: object()}
    assert touched(new, old) == [key]
    assert dropped(new, old) == []


def test_an_equal_value_is_not_a_change() -> None:
    assert touched({"a": [1, 2]}, {"a": [1, 2]}) == []
    assert touched({"a": [1, 2]}, {"a": [1, 3]}) == ["a"]


def test_large_states_are_compared_to_their_ends() -> None:
    old = {number: object() for number in range(1000)}
    for number in (0, 255, 256, 700, 999):
        less = {key: value for key, value in old.items() if key != number}
        assert (touched(less, old), dropped(less, old)) == ([], [number])
        assert (touched(old, less), dropped(old, less)) == ([number], [])
        assert touched({**old, number: object()}, old) == [number]
        assert touched({**less, number: old[number]}, old) == [], "moved to the end"


patches = st.tuples(versions, st.sets(st.sampled_from("abcdef")))


@given(versions, patches)
def test_a_patched_state_has_what_was_put_and_lacks_what_was_dropped(
    before: dict[str, object], patch: tuple[dict[str, object], set[str]]
) -> None:
    put, drop = patch
    was = dict(before)
    after = patched(before, put, drop)
    assert after == {**{key: value for key, value in before.items() if key not in drop}, **put}
    assert before == was, "the one before stays as it is"
    assert (after is before) == (after == before)


@given(versions, st.lists(patches, max_size=80), st.data())
def test_any_two_of_its_states_differ_in_what_comparing_them_shows(
    first: dict[str, object],
    history: list[tuple[dict[str, object], set[str]]],
    data: st.DataObject,
) -> None:
    states: list[Mapping[str, object]] = [first]
    for put, drop in history:
        states.append(patched(states[-1], put, drop))
    new, old = data.draw(st.sampled_from(states)), data.draw(st.sampled_from(states))
    assert set(touched(new, old)) == set(touched(dict(new), dict(old)))
    assert set(dropped(new, old)) == set(dropped(dict(new), dict(old)))


def test_a_state_may_move_far_from_where_it_began() -> None:
    state: Mapping[int, object] = dict.fromkeys(range(2000))
    plain = dict(state)
    for step in range(40):
        put = {number: object() for number in range(step * 70, step * 70 + 60)}
        drop = range(step * 31, step * 31 + 17)
        before, state = state, patched(state, put, drop)
        plain = {key: value for key, value in plain.items() if key not in drop} | put
        assert state == plain
        assert (len(state), list(state.values())) == (len(plain), [state[key] for key in state])
        assert set(touched(state, before)) == put.keys()


def test_an_equal_value_stays_in_place() -> None:
    before = {"a": [1]}
    assert patched(before, {"a": [1]}) is before
    assert patched(before, {"a": [1], "b": [2]})["a"] is before["a"]


def test_what_differs_is_known_without_looking_at_the_rest() -> None:
    class Value:
        """Says when it is looked at."""

        looks = 0

        def __eq__(self, other: object) -> bool:
            Value.looks += 1
            return self is other

        __hash__ = None  # type: ignore[assignment]

    begin = patched({}, {number: Value() for number in range(1000)})
    end = patched(patched(begin, {7: Value()}), {1000: Value()}, drop=[8])
    Value.looks = 0
    assert (touched(end, begin), dropped(end, begin)) == ([7, 1000], [8])
    assert Value.looks <= 2
