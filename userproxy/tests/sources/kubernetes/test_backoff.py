"""How long is waited after failures."""

from __future__ import annotations

import pytest

from userproxy.sources.kubernetes.backoff import Backoff


def pauses(backoff: Backoff, count: int, *, unreachable: bool) -> list[float]:
    return [round(backoff.failed(unreachable=unreachable), 2) for _ in range(count)]


def test_a_server_that_is_not_there_is_tried_every_two_seconds_for_ever() -> None:
    backoff = Backoff(lambda: 1.0)
    assert pauses(backoff, 8, unreachable=True) == [0.2, 0.3, 0.45, 0.68, 1.01, 1.52, 2.0, 2.0]
    assert set(pauses(backoff, 100_000, unreachable=True)) == {2.0}


def test_a_server_that_refuses_gets_more_and_more_time() -> None:
    assert pauses(Backoff(lambda: 1.0), 15, unreachable=False)[-3:] == [25.95, 30.0, 30.0]


def test_clients_spread() -> None:
    first = [Backoff(lambda chance=chance: chance).failed() for chance in (0.0, 0.5, 1.0)]  # type: ignore[misc]  # bound early
    assert first == pytest.approx([0.1, 0.15, 0.2])


def test_it_begins_anew_after_success_and_when_the_trouble_changes() -> None:
    backoff = Backoff(lambda: 1.0)
    pauses(backoff, 10, unreachable=True)
    assert backoff.failed() == 0.2
    pauses(backoff, 10, unreachable=False)
    backoff.succeeded()
    assert backoff.failed() == 0.2


def test_the_server_may_ask_for_more_time() -> None:
    assert Backoff(lambda: 1.0).failed(retry_after=7) == 7
