"""Host ports: each Service port keeps its own."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from userproxy.model.service import PoolName
from userproxy.planner.ports import PortBook

RANGE = range(10400, 10404)
A, B, C, D, E = (PoolName("default", letter, "http") for letter in "abcde")


def test_the_lowest_port_nobody_ever_had_comes_first() -> None:
    book = PortBook(RANGE)
    assert book.assign([A, B]) == {A: 10400, B: 10401}
    book.release([A])
    assert book.assign([C]) == {C: 10402}


def test_a_deleted_service_finds_its_port_again() -> None:
    book = PortBook(RANGE)
    book.assign([A, B])
    book.release([A])
    assert book.assign([C, A]) == {C: 10402, A: 10400}


def test_assigning_again_changes_nothing() -> None:
    book = PortBook(RANGE)
    assert book.assign([A, B]) == book.assign([B, A]) == dict(book.live)


def test_the_port_released_longest_ago_is_reused_when_none_is_fresh() -> None:
    book = PortBook(RANGE)
    book.assign([A, B, C, D])
    book.release([B])
    book.release([A])
    assert book.assign([E]) == {E: 10401}
    book.release([E])
    assert book.assign([B]) == {B: 10400}, "its own port went to another one meanwhile"


def test_who_comes_back_is_served_before_new_ones() -> None:
    book = PortBook(range(10400, 10401))
    book.assign([A])
    book.release([A])
    assert book.assign([B, A]) == {A: 10400}


def test_who_got_no_port_gets_one_when_one_is_released() -> None:
    book = PortBook(range(10400, 10402))
    assert book.assign([A, B, C]) == {A: 10400, B: 10401}
    book.release([B])
    assert book.assign([C]) == {C: 10401}


def test_an_occupied_port_is_replaced_and_not_given_again() -> None:
    book = PortBook(RANGE)
    book.assign([A])
    book.mark_occupied(10400)
    assert book.assign([A]) == {A: 10401}
    assert set(book.assign([B, C, D]).values()) == {10402, 10403}


def test_an_occupied_port_may_be_tried_again_after_all_others() -> None:
    book = PortBook(RANGE)
    book.mark_occupied(10400)
    book.assign([A])
    book.release([A])
    book.retry_occupied()
    assert book.assign([B, C, D, E]) == {B: 10402, C: 10403, D: 10401, E: 10400}


def test_a_remembered_port_that_became_occupied_is_forgotten() -> None:
    book = PortBook(RANGE)
    book.assign([A])
    book.release([A])
    book.mark_occupied(10400)
    assert book.assign([A]) == {A: 10401}
    assert book.dump() == {"default/a:http": 10401}


def test_occupied_ports_out_of_the_range_do_not_matter() -> None:
    book = PortBook(RANGE)
    book.mark_occupied(80)
    book.retry_occupied()
    assert set(book.assign([A, B, C, D, E]).values()) == set(RANGE)


def test_a_restart_keeps_every_port_and_the_order_of_release() -> None:
    book = PortBook(RANGE)
    book.assign([A, B, C, D])
    book.release([C])
    book.release([B])
    again, ignored = PortBook.load(RANGE, json.loads(json.dumps(book.dump())))
    assert ignored == ()
    assert again.assign([D, A]) == {A: 10400, D: 10403}
    assert again.assign([E]) == {E: 10402}, "the port of C, which was released first"


def test_a_book_of_another_range_keeps_what_fits() -> None:
    book, ignored = PortBook.load(range(10402, 10410), {"default/a:http": 10400, "default/b:http": 10403})
    assert book.assign([A, B, C]) == {A: 10402, B: 10403, C: 10404}
    assert ignored == (
        "saved host port 'default/a:http': 10400 is ignored: its port is out of the port range 10402-10409",
    )


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"nonsense": 10401}, "its name is not NAMESPACE/NAME or NAMESPACE/NAME:PORT"),
        ({7: 10401}, "its name is not NAMESPACE/NAME or NAMESPACE/NAME:PORT"),
        ({"default/b:http": "10401"}, "its port is not a number"),
        ({"default/b:http": True}, "its port is not a number"),
        ({"default/b:http": None}, "its port is not a number"),
        ({"default/b:http": 10400}, "its port belongs to default/a:http"),
        ({"default/b:http": 80}, "its port is out of the port range 10400-10403"),
        ({"default/x": 10402, "default/x:": 10403}, "it has port 10402 already"),
    ],
)
def test_garbage_in_a_saved_book_is_ignored_and_reported(entry: dict[object, object], complaint: str) -> None:
    book, ignored = PortBook.load(RANGE, {"default/a:http": 10400} | entry)
    assert [line.rpartition(" is ignored: ")[2] for line in ignored] == [complaint]
    assert book.assign([B, A])[A] == 10400


@pytest.mark.parametrize("saved", [None, [], "text", 3])
def test_a_saved_book_that_is_no_mapping_starts_afresh(saved: object) -> None:
    book, ignored = PortBook.load(RANGE, saved)
    assert len(ignored) == 1
    assert book.assign([A]) == {A: 10400}


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens: no port twice, none out of the range, and live names keep theirs."""

    ports = range(10400, 10406)
    names = st.sampled_from([PoolName("default", letter) for letter in "abcdefghi"])

    def __init__(self) -> None:
        super().__init__()
        self.book = PortBook(self.ports)
        self.live: dict[PoolName, int] = {}
        self.occupied: set[int] = set()
        self.dumps: dict[int, list[tuple[str, int]]] = {}

    @rule(names=st.lists(names, unique=True))
    def assign(self, names: list[PoolName]) -> None:
        """Service ports come."""
        assigned = self.book.assign(names)
        for name in set(names) & set(self.live):
            assert assigned[name] == self.live[name], "a live name keeps its port"
        self.live.update(assigned)
        if len(assigned) < len(names):
            assert set(self.live.values()) | self.occupied == set(self.ports), "a port was left"

    @rule(names=st.lists(names))
    def release(self, names: list[PoolName]) -> None:
        """Listeners have closed."""
        self.book.release(names)
        self.live = {name: port for name, port in self.live.items() if name not in names}

    @rule(name=names)
    def come_back(self, name: PoolName) -> None:
        """One goes and comes back at once."""
        if name in self.live:
            self.book.release([name])
            assert self.book.assign([name]) == {name: self.live[name]}

    @rule(port=st.integers(10399, 10407))
    def occupy(self, port: int) -> None:
        """Something else has a port."""
        self.book.mark_occupied(port)
        self.occupied |= {port} & set(self.ports)
        self.live = {name: had for name, had in self.live.items() if had != port}

    @rule()
    def retry(self) -> None:
        """Occupied ports may be tried again."""
        self.book.retry_occupied()
        self.occupied.clear()

    @rule()
    def restart(self) -> None:
        """The daemon restarts."""
        self.book, ignored = PortBook.load(self.ports, self.book.dump())
        assert ignored == ()
        self.occupied.clear()
        self.dumps.clear()
        assert self.book.assign(self.live) == self.live, "a restart keeps every port"

    @invariant()
    def agree(self) -> None:
        """What holds after every step."""
        assert dict(self.book.live) == self.live
        assert len(set(self.live.values())) == len(self.live), "two live names share a port"
        assert set(self.live.values()) <= set(self.ports) - self.occupied
        dump = list(self.book.dump().items())
        assert len(dump) <= len(self.ports), "more is remembered than there are ports"
        known = self.dumps.setdefault(self.book.revision, dump)
        assert known == dump, "a change that nobody would write down"


test_any_history_of_a_book = AnyHistory.TestCase
