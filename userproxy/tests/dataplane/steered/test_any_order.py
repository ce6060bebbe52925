"""Whatever comes in whatever order: each connection has one backend, is counted once, and nothing leaks."""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from userproxy.dataplane.recorder import Recorder
from userproxy.dataplane.steered.bounds import MEMORY_SECONDS
from userproxy.dataplane.steered.ledger import Ledger
from userproxy.dataplane.steered.words import Known, Say
from userproxy.model.filter import RecordFilter
from userproxy.model.service import Protocol
from userproxy.model.settings import Balance, NoEndpoints, Settings
from userproxy.tests.dataplane.steered.bench import Bench, address, flow

if TYPE_CHECKING:
    from userproxy.dataplane.steered.port import Carried
    from userproxy.model.address import Address
    from userproxy.model.carried import End
    from userproxy.model.endings import Reason

FLOWS = [flow(client, port) for client in (1, 2) for port in (1, 2)] + [flow(1, 1, Protocol.UDP)]
_UDP = FLOWS[-1]
_MOST_CONNECTIONS = 3


@dataclass
class Entry:
    """A connection as conntrack has it."""

    backend: Address
    sequence: int
    answered: bool = False
    over: bool = False


@dataclass
class Kernel:
    """What conntrack has, and what it has yet to tell: the flow, what, and where it leads."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    events: deque[tuple[bytes, str, Address]] = field(default_factory=deque)

    def let_go(self, which: bytes, sequence: int, backend: Address) -> None:
        """A first packet goes on."""
        known = self.entries.get(which)
        if known is None or known.over:
            self.entries[which] = Entry(backend, sequence)
            self.events.append((which, "new", backend))

    def refuse(self, which: bytes) -> None:
        """The client is told that it is over; what it had begun is answered by nobody, and has its time."""
        entry = self.entries.get(which)
        if entry is not None and not entry.answered:
            del self.entries[which]
            self.events.append((which, "refused", entry.backend))


class Once(Ledger):
    """A ledger that takes each connection once."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.counters, lambda: bench.now)
        self.recorder = Recorder(10_000)
        self.keep = self.recorder.keep
        self._over: list[Carried] = []

    def over(self, carried: Carried, reason: Reason, end: End | None = None) -> None:
        """Of `Ledger`."""
        assert all(carried is not one for one in self._over)
        self._over.append(carried)
        super().over(carried, reason, end)

    @property
    def is_complete(self) -> bool:
        """Whether each that is over can be told, and no other is."""
        records = [one for chunk in self.recorder.matching(RecordFilter(live=False)) for one in chunk]
        return len(records) == len(self._over) and all(record.seconds >= 0.0 for record in records)


class AnyOrder(RuleBasedStateMachine):
    """The decision, with a kernel beside it that is as forgetful as the real one."""

    @initialize(
        balance=st.sampled_from(Balance),
        most=st.sampled_from([None, _MOST_CONNECTIONS]),
        each=st.sampled_from([None, 1]),
        hold=st.sampled_from(NoEndpoints),
        count=st.integers(0, 3),
    )
    def begin(
        self, balance: Balance, most: int | None, each: int | None, hold: NoEndpoints, count: int
    ) -> None:
        """Some Service port."""
        self.bench = Bench(
            count,
            Settings(
                balance=balance,
                max_connections=most,
                max_connections_per_client=each,
                no_endpoints=hold,
                hold_connections=2,
                hold_timeout=20.0,
            ),
        )
        self.ledger = self.bench.decision.ledger = Once(self.bench)
        self.kernel = Kernel()
        self.pods = list(range(count))
        self.held: dict[int, tuple[bytes, int]] = {}

    @rule(which=st.sampled_from(FLOWS), sequence=st.integers(1, 2))
    def first(self, which: bytes, sequence: int) -> None:
        """A first packet, whether of a new connection or again."""
        entry = self.kernel.entries.get(which)
        if which == _UDP and entry is not None:
            return  # the queue is behind conntrack
        sequence *= which != _UDP
        answer = self.bench.first(which, sequence)
        if answer == Say.LOOK:
            known = Known.NOTHING
            if entry is not None:
                known = Known.OVER if entry.over else Known.LIVE if entry.answered else Known.UNANSWERED
            if entry is not None and known is Known.UNANSWERED:
                del self.kernel.entries[which]
                self.kernel.events.append((which, "over", entry.backend))
            answer = self.bench.decision.again(which, sequence, (self.bench.token, 0), known)
        self._said(self.bench.token, which, sequence, answer)

    def _said(self, token: int, which: bytes, sequence: int, answer: int) -> None:
        if answer == Say.HELD:
            assert token not in self.held
            self.held[token] = which, sequence
        elif answer >= 0:
            self.kernel.let_go(which, sequence, address(self.pods[answer]))
        elif answer == Say.UNSTEERED:
            assert which in self.kernel.entries
            entry = self.kernel.entries[which]
            self.kernel.let_go(which, sequence, entry.backend)
        elif answer == Say.REFUSE:
            self.kernel.refuse(which)

    def _take_settled(self) -> None:
        for token, answer in self.bench.take_settled():
            which, sequence = self.held.pop(token)
            assert answer not in (Say.HELD, Say.LOOK, Say.DROP)
            self._said(token, which, sequence, answer)

    @rule(error=st.sampled_from([0, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EMFILE]))
    def dialled(self, error: int) -> None:
        """Dials of ours have an outcome."""
        self.bench.dialled(error)
        self._take_settled()

    @rule(which=st.sampled_from(FLOWS), refuse=st.booleans())
    def answer(self, which: bytes, refuse: bool) -> None:
        """A pod answers, or refuses."""
        entry = self.kernel.entries.get(which)
        if entry is None or entry.answered:
            return
        if refuse:
            del self.kernel.entries[which]
            self.kernel.events.append((which, "refused", entry.backend))
        else:
            entry.answered = True
            self.kernel.events.append((which, "answered", entry.backend))

    @rule(which=st.sampled_from(FLOWS), told=st.sampled_from(["over", "refused"]))
    def end(self, which: bytes, told: str = "over") -> None:
        """A connection is over, perhaps in the midst of its handshake; of UDP, its entry is gone."""
        entry = self.kernel.entries.get(which)
        if entry is None or not entry.answered or entry.over:
            return
        entry.over = True
        self.kernel.events.append((which, told, entry.backend))
        if which == _UDP:
            del self.kernel.entries[which]

    @rule(count=st.integers(1, 5))
    def tell(self, count: int) -> None:
        """Some of what conntrack has to tell arrives."""
        decision = self.bench.decision
        for _ in range(min(count, len(self.kernel.events))):
            which, what, backend = self.kernel.events.popleft()
            if what in ("new", "answered"):
                decision.carried(which, backend, answered=what == "answered")
            elif what == "over":
                decision.ended(which, backend)
            else:
                decision.refused(which, backend)

    @rule(pods=st.lists(st.integers(0, 3), max_size=3, unique=True))
    def update(self, pods: list[int]) -> None:
        """Other backends."""
        self.pods = pods
        self.bench.update(pods)
        self._take_settled()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.bench.now += seconds
        self.bench.decision.expire()
        self._take_settled()

    @invariant()
    def counted_once(self) -> None:
        """What is counted of the Service port, of each client and on each backend is the same."""
        service = self.bench.service
        report = service.report()
        assert service.connections == sum(each.connections for each in report.backends)
        assert service.connections <= len(self.bench.decision)
        assert all(each.connections >= 0 for each in report.backends)
        assert self.bench.decision.held == len(self.held)

    @invariant()
    def every_held_packet_is_another_ones(self) -> None:
        """Of each connection, one packet is held at most."""
        held = [which for which, _ in self.held.values()]
        assert len(held) == len(set(held))

    @precondition(lambda self: not self.kernel.events and not self.held)
    @invariant()
    def all_that_live_are_counted_where_they_are(self) -> None:
        """Once all is told, those counted are those that the kernel carries."""
        live = [entry.backend for entry in self.kernel.entries.values() if not entry.over]
        counted = {each.address: each.connections for each in self.bench.service.report().backends}
        for backend in map(address, range(4)):
            assert counted.get(backend, 0) == live.count(backend)

    def teardown(self) -> None:
        """When all is over, nothing is left."""
        if not hasattr(self, "bench"):
            return
        while self.held:
            self.bench.now += 20.0
            self.bench.dialled()
            self.bench.decision.expire()
            self._take_settled()
        for which in FLOWS:
            entry = self.kernel.entries.get(which)
            if entry is not None and not entry.over:
                entry.answered = True
                self.end(which)
        self.tell(len(self.kernel.events))
        self.bench.now += MEMORY_SECONDS
        self.bench.decision.expire()
        assert len(self.bench.decision) == self.bench.service.connections == self.bench.decision.held == 0
        assert not any(self.bench.counted())
        assert self.ledger.is_complete


TestAnyOrder = pytest.mark.usefixtures("quiet")(AnyOrder.TestCase)
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
