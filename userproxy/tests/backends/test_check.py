"""When checks are made, and when they take a backend out and bring it back."""

from __future__ import annotations

import pytest

from userproxy.backends.check import Checked, is_due_at_all, is_healthy, next_interval
from userproxy.model.settings import Check, HealthCheck


def states(outcomes: str, check: Check) -> str:
    """`U` or `D` after each outcome: `+` passed, `-` failed."""
    checked = Checked()
    shown = ""
    for outcome in outcomes:
        checked.take("" if outcome == "+" else "refused", check)
        shown += "U" if checked.up else "D"
    return shown


def test_fall_failures_in_a_row_take_it_out_and_rise_passes_bring_it_back() -> None:
    assert states("+--+---++", Check(rise=2, fall=3)) == "UUUUUUDDU"


def test_a_pass_in_between_starts_the_count_anew() -> None:
    assert states("--+--+-+--", Check(rise=1, fall=3)) == "UUUUUUUUUU"
    assert states("-+-+", Check(rise=2, fall=1)) == "DDDD"


@pytest.mark.parametrize(
    ("kind", "idle", "expected"),
    [
        (HealthCheck.AUTO, 299.0, True),
        (HealthCheck.AUTO, 300.0, False),
        (HealthCheck.TCP, 1e9, True),
        (HealthCheck.HTTP, 1e9, True),
        (HealthCheck.OFF, 0.0, False),
    ],
)
def test_checks_are_made_for_services_in_use_or_whose_author_asks(
    kind: HealthCheck, idle: float, expected: bool
) -> None:
    assert is_due_at_all(Check(kind=kind), 1000.0, 1000.0 - idle) is expected


def test_the_interval_varies_and_is_short_while_in_doubt() -> None:
    check = Check(interval=5.0)
    assert [next_interval(check, draw, in_doubt=False) for draw in (0.0, 0.5, 1.0)] == pytest.approx(
        [4, 5, 6]
    )
    assert next_interval(check, 0.5, in_doubt=True) == 1.0
    assert next_interval(Check(interval=0.2), 0.5, in_doubt=True) == pytest.approx(0.2)


def test_the_status_must_be_one_of_those_named() -> None:
    check = Check(status=((200, 299), (404, 404)))
    assert [status for status in (199, 200, 299, 300, 404, 500) if is_healthy(status, check)] == [
        200,
        299,
        404,
    ]
