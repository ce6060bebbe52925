"""Captures become elements and captures again; a change is the fewest elements that make it."""

from __future__ import annotations

import msgspec
import pytest

from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.service import Protocol
from userproxy.model.state import Drop, Frontend, NodeState, Perimeter, Refuse, Target, ToListener, ToPods
from userproxy.netfilter.elements.access import guards_of, perimeter_elements, range_elements
from userproxy.netfilter.elements.captures import captures_of, elements_of
from userproxy.netfilter.elements.element import ClientPin, Element
from userproxy.netfilter.elements.pins import pin_changes, retimed, sorted_out
from userproxy.netfilter.elements.table import Elements, state_of
from userproxy.netfilter.ruleset.made import Pick, Relay
from userproxy.tests.twins import twin

FRONTEND = Frontend(Protocol.TCP, Address("10.3.241.152", 80))
OTHER = Frontend(Protocol.UDP, Address("10.3.241.10", 53))
OUTSIDE = msgspec.structs.replace(FRONTEND, outside=True)
LISTENER = ToListener(Address("10.100.0.2", 10400))
BACKED = ToListener(LISTENER.listener, ToPods((Address("10.0.1.2", 8080),), masquerade=True))
GUARDS = frozenset({Frontend(Protocol.TCP, LISTENER.listener)})
ONE, TWO, THREE = (Address(f"10.0.1.{host}", 8080) for host in (2, 3, 4))


def held(captures: dict[Frontend, Target], guards: frozenset[Frontend] = frozenset()) -> Elements:
    return Elements(NodeState(captures=captures, guards=dict.fromkeys(guards)))


def names(elements: list[Element]) -> list[str]:
    return sorted(element.set for element in elements)


@pytest.mark.parametrize(
    "target",
    [
        LISTENER,
        ToPods((ONE,)),
        ToPods((TWO, ONE, THREE), masquerade=True),
        ToPods((TWO, ONE), affinity=10_800.0),
        ToPods((ONE,), most=5),
        ToPods((ONE,), steered=True, most_per_client=3),
        ToPods((ONE,), masquerade=True, most=5, most_per_client=3),
        BACKED,
        ToListener(LISTENER.listener, steered=True),
        ToListener(LISTENER.listener, ToPods((TWO, ONE), masquerade=True, affinity=60.0)),
        Refuse(),
        Drop(),
    ],
)
@pytest.mark.parametrize("frontend", [FRONTEND, OTHER, OUTSIDE])
def test_captures_survive_the_kernel(frontend: Frontend, target: Target) -> None:
    captures = {frontend: target, twin(frontend): twin(target)}
    assert captures_of([each for key in captures for each in elements_of(key, captures[key])]) == captures


def test_an_element_is_packed_as_the_kernel_holds_it() -> None:
    element = elements_of(FRONTEND, LISTENER)[0]
    assert element.key.hex(" ") == "0a 03 f1 98 06 00 00 00 00 50 00 00"
    assert element.data.hex(" ") == "0a 64 00 02 28 a0 00 00"
    element = elements_of(twin(FRONTEND), twin(LISTENER))[0]
    assert element.set == "listeners6"
    assert element.key.hex(" ", -4) == "fd000004 00000000 00000000 0a03f198 06000000 00500000"
    assert element.data.hex(" ", -4) == "fd000004 00000000 00000000 0a640002 28a00000"


def test_a_listener_stays_guarded_until_it_is_unguarded() -> None:
    elements = held({FRONTEND: LISTENER}, GUARDS)
    for change, went, came in (
        (CaptureChange(put={FRONTEND: Refuse()}), ["listeners4"], ["checked4", "refused4"]),
        (CaptureChange(guard=GUARDS), [], []),
        (CaptureChange(unguard=GUARDS), ["guarded4"], []),
        (CaptureChange(unguard=GUARDS), [], []),
        (CaptureChange(guard=GUARDS), [], ["guarded4"]),
    ):
        gone, new = elements.difference(change)
        assert (names(gone), names(new)) == (went, came)
        elements.apply(change)
    assert set(elements) == set(held({FRONTEND: Refuse()}, GUARDS))


def test_guards_survive_the_kernel() -> None:
    assert guards_of(held({FRONTEND: LISTENER}, GUARDS)) == GUARDS
    assert guards_of([Element("guarded4", bytes([10, 3, 0, 1, 132, 0, 0, 0, 0, 80, 0, 0]))]) == set()


def test_a_second_frontend_of_a_listener_adds_only_itself() -> None:
    second = Frontend(Protocol.TCP, OTHER.address)
    gone, new = held({FRONTEND: LISTENER}).difference(CaptureChange(put={second: LISTENER}))
    assert (gone, names(new)) == ([], ["listeners4"])


@pytest.mark.parametrize("target", [LISTENER, Refuse(), Drop(), ToPods((ONE, TWO))])
def test_the_same_target_again_changes_nothing(target: Target) -> None:
    assert held({FRONTEND: target}).difference(CaptureChange(put={FRONTEND: target})) == ([], [])


def test_swapping_one_pod_touches_that_pod_only() -> None:
    elements = held({FRONTEND: ToPods((ONE, TWO))})
    gone, new = elements.difference(CaptureChange(put={FRONTEND: ToPods((ONE, THREE))}))
    assert names(gone) == names(new) == ["hairpins4", "pods4"]


def test_losing_the_last_endpoint_moves_the_frontend_to_the_refused() -> None:
    gone, new = held({FRONTEND: LISTENER}).difference(CaptureChange(put={FRONTEND: Refuse()}))
    assert (names(gone), names(new)) == (["listeners4"], ["checked4", "refused4"])


def test_a_pod_behind_a_listener_touches_that_pod_only() -> None:
    elements = held({FRONTEND: BACKED})
    more = ToListener(LISTENER.listener, ToPods((ONE, TWO), masquerade=True))
    gone, new = elements.difference(CaptureChange(put={FRONTEND: more}))
    assert (names(gone), names(new)) == (["sizes4"], ["pods4", "sizes4"])
    elements.apply(CaptureChange(put={FRONTEND: more}))
    gone, new = elements.difference(
        CaptureChange(put={FRONTEND: ToListener(LISTENER.listener, ToPods((ONE, THREE), masquerade=True))})
    )
    assert names(gone) == names(new) == ["pods4"]
    gone, new = elements.difference(CaptureChange(put={FRONTEND: LISTENER}))
    assert (names(gone), new) == (["fallback4", "pods4", "pods4", "sizes4"], [])


def test_a_stop_takes_nothing_but_the_way_to_the_listeners() -> None:
    elements = Elements(NodeState(captures={FRONTEND: BACKED}, workers=2))
    assert state_of(list(elements)).workers == 2
    assert elements.made() == {Pick(1), Relay(2), Relay(2, outside=True)}
    for workers, went, came in ((2, 0, 0), (3, 4, 4), (0, 4, 0), (0, 0, 0), (1, 0, 4)):
        gone, new = elements.difference(CaptureChange(workers=workers))
        assert (len(gone), len(new)) == (went, came)
        assert {each.set for each in (*gone, *new)} <= {"relay", "outside-relay"}
        elements.apply(CaptureChange(workers=workers))
        assert state_of(list(elements)) == elements.state


def test_applied_changes_are_what_a_fresh_start_would_hold() -> None:
    elements = held({FRONTEND: LISTENER, OTHER: ToPods((ONE, TWO, ONE))})
    elements.apply(CaptureChange(put={FRONTEND: ToPods((ONE,))}, remove=frozenset({OTHER})))
    elements.apply(CaptureChange(put={OTHER: Drop()}))
    wanted: dict[Frontend, Target] = {FRONTEND: ToPods((ONE,)), OTHER: Drop()}
    assert elements.captures == wanted
    assert set(elements) == set(held(wanted))


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
        (FRONTEND, ToListener(Address("fd00::1", 80))),
        (FRONTEND, ToPods((Address("fd00::1", 80),))),
        (twin(FRONTEND), ToListener(ONE)),
        (twin(FRONTEND), ToPods((ONE,))),
        (FRONTEND, ToPods(())),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(frontend: Frontend, target: Target) -> None:
    with pytest.raises(ValueError, match=r"is not an IPv[46] address|has no pods"):
        elements_of(frontend, target)


STATE = NodeState(
    captures={
        FRONTEND: ToPods((ONE, TWO), masquerade=True, affinity=3.0),
        OUTSIDE: ToPods((ONE,), affinity=3.0),
        OTHER: LISTENER,
    },
    guards=dict.fromkeys(GUARDS),
    cluster_ips={FRONTEND.address.ip: None, OTHER.address.ip: None},
    ranges={FRONTEND: ("10.0.0.0/14", "192.0.2.7/32"), OTHER: ("0.0.0.0/0",)},
    pods={ONE.ip: None, TWO.ip: None, "10.0.1.99": None},
    perimeter=Perimeter(uplinks=("eth0", "eth1"), inside=("10.0.0.0/14", "10.4.0.0/16"), closed=False),
)
CHANGES = {
    "a frontend for the outside comes": CaptureChange(
        put={msgspec.structs.replace(OTHER, outside=True): Drop()}
    ),
    "a frontend for the outside goes": CaptureChange(remove=frozenset({OUTSIDE})),
    "a cluster IP comes and one goes": CaptureChange(
        claim=frozenset({"10.3.0.1"}), disclaim=frozenset({OTHER.address.ip})
    ),
    "a pod comes and one goes": CaptureChange(watch=frozenset({THREE.ip}), unwatch=frozenset({"10.0.1.99"})),
    "other networks": CaptureChange(ranges={FRONTEND: ("10.0.0.0/14", "192.0.2.0/24"), OTHER: ()}),
    "another perimeter": CaptureChange(perimeter=Perimeter(uplinks=("eth1",), inside=("10.0.0.0/8",))),
    "no masquerading": CaptureChange(put={FRONTEND: ToPods((ONE, TWO), affinity=3.0)}),
    "no affinity": CaptureChange(put={FRONTEND: ToPods((ONE, TWO), masquerade=True)}),
    "affinity for longer": CaptureChange(put={FRONTEND: ToPods((ONE, TWO), masquerade=True, affinity=9.0)}),
}


def both_families(state: NodeState) -> NodeState:
    """The state with that of its twin beside it."""
    other = twin(state)
    return NodeState(
        captures={**state.captures, **other.captures},
        guards={**state.guards, **other.guards},
        cluster_ips={**state.cluster_ips, **other.cluster_ips},
        ranges={**state.ranges, **other.ranges},
        pods={**state.pods, **other.pods},
        perimeter=msgspec.structs.replace(
            state.perimeter, inside=(*state.perimeter.inside, *other.perimeter.inside)
        ),
    )


@pytest.mark.parametrize("state", [STATE, twin(STATE), both_families(STATE)], ids=["IPv4", "IPv6", "both"])
def test_a_whole_state_survives_the_kernel(state: NodeState) -> None:
    assert state_of(set(Elements(state))) == state


def test_the_twins_of_a_state_share_no_element_but_its_uplinks() -> None:
    shared = set(Elements(STATE)) & set(Elements(twin(STATE)))
    assert {each.set for each in shared} == {"uplinks"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_what_a_fresh_start_would_hold(change: CaptureChange) -> None:
    elements = Elements(STATE)
    gone, new = elements.difference(change)
    before = set(elements)
    elements.apply(change)
    assert set(elements) == before - set(gone) | set(new) == set(Elements(elements.state))
    assert not set(gone) & set(new)
    assert state_of(set(elements)) == elements.state != STATE
    assert elements.difference(change) == ([], []), "once is enough"


def test_a_pod_that_gets_no_new_connections_is_watched_until_it_is_none_of_ours() -> None:
    elements = Elements(NodeState(captures={FRONTEND: ToPods((ONE, TWO))}, pods={ONE.ip: None, TWO.ip: None}))
    for change, went in (
        (CaptureChange(put={FRONTEND: ToPods((ONE,))}), ["pods4", "sizes4"]),
        (CaptureChange(put={FRONTEND: Refuse()}), ["pods4", "sizes4"]),
        (CaptureChange(unwatch=frozenset({TWO.ip})), ["hairpins4"]),
    ):
        gone, _ = elements.difference(change)
        assert sorted({element.set for element in gone}) == went
        elements.apply(change)
    assert elements.state.pods == {ONE.ip: None}


def test_affinity_is_in_whole_seconds() -> None:
    elements = elements_of(FRONTEND, ToPods((ONE,), affinity=0.25))
    assert captures_of(elements) == {FRONTEND: ToPods((ONE,), affinity=1.0)}


def test_networks_that_overlap_are_one() -> None:
    (*_, held_range) = range_elements(FRONTEND, ("10.1.2.3/16", "10.1.0.0/24", "10.0.0.0/16"))
    assert (held_range.key[12:], held_range.last[12:]) == (bytes([10, 0, 0, 0]), bytes([10, 1, 255, 255]))


@pytest.mark.parametrize("network", ["fd00::/129", "10.0.0.0/33", "everybody"])
def test_a_network_that_is_none_is_refused_by_name(network: str) -> None:
    with pytest.raises(ValueError, match=f"{network} is not a network"):
        range_elements(FRONTEND, ("10.0.0.0/8", network))


@pytest.mark.parametrize(
    ("frontend", "network", "nobody"),
    [
        (FRONTEND, "fd00::/8", "255.255.255.255/32"),
        (twin(FRONTEND), "10.0.0.0/8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
    ],
)
def test_networks_of_the_other_family_let_nobody_in(frontend: Frontend, network: str, nobody: str) -> None:
    held_ranges = range_elements(frontend, (network,))
    assert state_of(held_ranges).ranges == {frontend: (nobody,)}
    assert held_ranges == range_elements(frontend, (nobody,)), "so it can be adopted"


@pytest.mark.parametrize("name", ["", "a-name-of-16-byte"])
def test_an_uplink_that_no_interface_can_be_called_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no name of an interface"):
        perimeter_elements(Perimeter(uplinks=("eth0", name)))


def pins(target: Target, *, left: int) -> list[ClientPin]:
    """What rules have noted of two clients, one for each of the first two pods."""
    members = [each for each in elements_of(FRONTEND, target) if each.set == "members4"]
    return [
        ClientPin("affinity4", bytes([10, 0, 1, index]) + each.key[:12], each.key[12:], 3_000, left)
        for index, each in enumerate(members)
    ]


BOTH = ToPods((ONE, TWO), affinity=3.0)


@pytest.mark.parametrize(
    ("after", "left"),
    [
        (ToPods((ONE, TWO), affinity=10.0), [9_000, 9_000]),
        (ToPods((ONE, TWO), affinity=2.0), [1_000, 1_000]),
        (ToPods((ONE, TWO), affinity=1.0), []),
        (ToPods((ONE, TWO)), []),
        (ToPods((TWO, THREE), affinity=10.0), [9_000]),
        (Refuse(), []),
        (None, []),
    ],
    ids=["longer", "shorter", "so short that it is over", "off", "a pod less", "refused", "gone"],
)
def test_pins_end_when_they_would_if_their_time_had_been_this_all_along(
    after: Target | None, left: list[int]
) -> None:
    changes = pin_changes(elements_of(FRONTEND, BOTH), elements_of(FRONTEND, after))
    gone, new = retimed(pins(BOTH, left=2_000), changes)
    assert gone == pins(BOTH, left=2_000)
    assert [pin.left for pin in new] == left
    assert all(pin.key in {each.key for each in gone} for pin in new)


def test_a_pin_is_left_alone_whose_pod_and_time_stay() -> None:
    three = ToPods((ONE, TWO, THREE), affinity=3.0)
    changes = pin_changes(elements_of(FRONTEND, three), elements_of(FRONTEND, BOTH))
    gone, new = retimed(pins(three, left=2_000), changes)
    assert (gone, new) == (pins(three, left=2_000)[2:], [])


def test_a_pin_that_was_renewed_after_the_change_never_holds_for_too_long() -> None:
    changes = pin_changes(
        elements_of(FRONTEND, BOTH), elements_of(FRONTEND, ToPods((ONE, TWO), affinity=9.0))
    )
    _, new = retimed(pins(BOTH, left=9_000), changes)
    assert {pin.left for pin in new} == {9_000}


def test_pins_to_pods_of_the_past_are_sorted_out() -> None:
    found = pins(ToPods((ONE, THREE), affinity=3.0), left=2_000)
    valid, stale = sorted_out(found, held({FRONTEND: BOTH}))
    assert valid == found[:1]
    assert retimed(found, stale) == (found[1:], [])
