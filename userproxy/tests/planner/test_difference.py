"""Two versions of a dictionary, compared where they differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from userproxy.planner.difference import dropped, touched

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
