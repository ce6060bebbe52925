"""Captures become elements and captures again; a change is the fewest elements that make it."""

from __future__ import annotations

import pytest

from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.elements import Element, Elements, captures_of, elements_of, guards_of

FRONTEND = Frontend(Protocol.TCP, Address("10.3.241.152", 80))
OTHER = Frontend(Protocol.UDP, Address("10.3.241.10", 53))
LISTENER = ToListener(Address("10.100.0.2", 10400))
GUARDS = frozenset({Frontend(Protocol.TCP, LISTENER.listener)})
ONE, TWO, THREE = (Address(f"10.0.1.{host}", 8080) for host in (2, 3, 4))


def names(elements: list[Element]) -> list[str]:
    return sorted(element.set for element in elements)


@pytest.mark.parametrize("target", [LISTENER, ToPods((ONE,)), ToPods((TWO, ONE, THREE)), Refuse(), Drop()])
@pytest.mark.parametrize("frontend", [FRONTEND, OTHER])
def test_captures_survive_the_kernel(frontend: Frontend, target: Target) -> None:
    assert captures_of(elements_of(frontend, target)) == {frontend: target}


def test_an_element_is_packed_as_the_kernel_holds_it() -> None:
    element = elements_of(FRONTEND, LISTENER)[0]
    assert element.key.hex(" ") == "0a 03 f1 98 06 00 00 00 00 50 00 00"
    assert element.data.hex(" ") == "0a 64 00 02 28 a0 00 00"


def test_a_listener_stays_guarded_until_it_is_unguarded() -> None:
    elements = Elements({FRONTEND: LISTENER}, GUARDS)
    for change, went, came in (
        (CaptureChange(put={FRONTEND: Refuse()}), ["listeners4"], ["refused4"]),
        (CaptureChange(guard=GUARDS), [], []),
        (CaptureChange(unguard=GUARDS), ["guarded4"], []),
        (CaptureChange(unguard=GUARDS), [], []),
        (CaptureChange(guard=GUARDS), [], ["guarded4"]),
    ):
        gone, new = elements.difference(change)
        assert (names(gone), names(new)) == (went, came)
        elements.apply(change)
    assert set(elements) == set(Elements({FRONTEND: Refuse()}, GUARDS))


def test_guards_survive_the_kernel() -> None:
    assert guards_of(Elements({FRONTEND: LISTENER}, GUARDS)) == GUARDS
    assert guards_of([Element("guarded4", bytes([10, 3, 0, 1, 132, 0, 0, 0, 0, 80, 0, 0]))]) == set()


def test_a_second_frontend_of_a_listener_adds_only_itself() -> None:
    second = Frontend(Protocol.TCP, OTHER.address)
    gone, new = Elements({FRONTEND: LISTENER}).difference(CaptureChange(put={second: LISTENER}))
    assert (gone, names(new)) == ([], ["listeners4"])


@pytest.mark.parametrize("target", [LISTENER, Refuse(), Drop(), ToPods((ONE, TWO))])
def test_the_same_target_again_changes_nothing(target: Target) -> None:
    assert Elements({FRONTEND: target}).difference(CaptureChange(put={FRONTEND: target})) == ([], [])


def test_swapping_one_pod_touches_that_pod_only() -> None:
    elements = Elements({FRONTEND: ToPods((ONE, TWO))})
    gone, new = elements.difference(CaptureChange(put={FRONTEND: ToPods((ONE, THREE))}))
    assert names(gone) == names(new) == ["hairpins4", "pods4"]


def test_losing_the_last_endpoint_moves_the_frontend_to_the_refused() -> None:
    gone, new = Elements({FRONTEND: LISTENER}).difference(CaptureChange(put={FRONTEND: Refuse()}))
    assert (names(gone), names(new)) == (["listeners4"], ["refused4"])


def test_applied_changes_are_what_a_fresh_start_would_hold() -> None:
    elements = Elements({FRONTEND: LISTENER, OTHER: ToPods((ONE, TWO, ONE))})
    elements.apply(CaptureChange(put={FRONTEND: ToPods((ONE,))}, remove=frozenset({OTHER})))
    elements.apply(CaptureChange(put={OTHER: Drop()}))
    wanted: dict[Frontend, Target] = {FRONTEND: ToPods((ONE,)), OTHER: Drop()}
    assert elements.captures == wanted
    assert set(elements) == set(Elements(wanted))


def test_removing_what_is_not_there_is_no_change() -> None:
    assert Elements().difference(CaptureChange(remove=frozenset({FRONTEND}))) == ([], [])


def test_a_service_with_a_pod_missing_is_not_taken_over() -> None:
    elements = [
        each for each in elements_of(FRONTEND, ToPods((ONE, TWO))) if not each.key.endswith(b"\0\0\0\0")
    ]
    assert captures_of(elements) == {}


def test_an_element_of_a_protocol_that_is_not_ours_is_left_out() -> None:
    assert captures_of([Element("refused4", bytes([10, 3, 0, 1, 132, 0, 0, 0, 0, 80, 0, 0]))]) == {}


@pytest.mark.parametrize(
    ("frontend", "target"),
    [
        (Frontend(Protocol.TCP, Address("fd00::1", 80)), Refuse()),
        (FRONTEND, ToListener(Address("fd00::1", 80))),
        (FRONTEND, ToPods((Address("fd00::1", 80),))),
        (FRONTEND, ToPods(())),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(frontend: Frontend, target: Target) -> None:
    with pytest.raises(ValueError, match=r"fd00::1 is not an IPv4 address|has no pods"):
        elements_of(frontend, target)
