"""Who may be picked, as a picture: a letter for each backend, upper case where it is in the rotation.

`u` is up, `e` ejected, `d` down; what stands behind a `|` is far away.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.backends.rotation import may_eject, rotate


class Backend(NamedTuple):
    """A backend on which there is a judgement."""

    ejected: bool
    down: bool
    number: int


def parse(letters: str, start: int = 0) -> list[Backend]:
    return [Backend(letter == "e", letter == "d", start + n) for n, letter in enumerate(letters)]


def picture(states: str) -> str:
    """The rotation that backends in these states get."""
    letters = states.partition("|")
    near, far = parse(letters[0]), parse(letters[2], 100)
    first = rotate(near, far).first
    shown = [letter.upper() if b in first else letter for b, letter in zip(near, letters[0], strict=True)]
    shown += letters[1]
    shown += [letter.upper() if b in first else letter for b, letter in zip(far, letters[2], strict=True)]
    return "".join(shown)


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param("", id="no-backend"),
        pytest.param("UU", id="all-are-up"),
        pytest.param("UeU", id="an-ejected-one-is-out"),
        pytest.param("UdU", id="one-that-is-down-is-out"),
        pytest.param("UdEd", id="panic-ejections-do-not-count"),
        pytest.param("Uddddd", id="panic-what-checks-say-counts"),
        pytest.param("E", id="the-last-one"),
        pytest.param("dE", id="ejected-is-better-than-down"),
        pytest.param("DD", id="all-are-down-so-all-are-tried"),
        pytest.param("UU|uu", id="near-ones-serve"),
        pytest.param("Ue|uu", id="half-of-them-still-do"),
        pytest.param("Udd|UUU", id="far-ones-join-in-while-most-near-ones-are-out"),
        pytest.param("dd|UUU", id="and-take-over-when-all-are"),
        pytest.param("DD|dd", id="unless-they-are-no-better"),
    ],
)
def test_the_rotation(expected: str) -> None:
    assert picture(expected.lower()) == expected


def test_who_is_out_is_tried_last_the_likeliest_first() -> None:
    near, far = parse("uudeuu"), parse("uu", 100)
    assert [backend.number for backend in rotate(near, far).last] == [100, 101, 3, 2]


def test_at_most_half_are_ejected_and_never_the_last() -> None:
    allowed = {
        states: may_eject(parse(states)) for states in ("u", "uu", "ue", "uuu", "uue", "uuuuee", "uuueee")
    }
    assert [states for states, may in allowed.items() if may] == ["uu", "uuu", "uuuuee"]


@given(st.text("ued", max_size=8), st.text("ued", max_size=8))
def test_everybody_is_tried_once_and_who_is_down_never_before_somebody_who_is_up(near: str, far: str) -> None:
    rotation = rotate(parse(near), parse(far, 100))
    order = [*rotation.first, *rotation.last]
    assert sorted(backend.number for backend in order) == sorted(
        backend.number for backend in (*parse(near), *parse(far, 100))
    )
    assert bool(rotation.first) == bool(near or far)
    if any(not backend.down for backend in rotation.first):
        assert not any(backend.down for backend in rotation.first)
