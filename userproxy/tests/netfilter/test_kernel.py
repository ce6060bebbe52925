"""Table and routes together: which comes first, and what is left where one of them fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.model.actions import CaptureChange
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.service import Protocol
from userproxy.model.state import Frontend, NodeState, Refuse, ToListener, ToPods
from userproxy.netfilter import NetfilterError, kernel
from userproxy.netfilter.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from userproxy.model.state import Target

HOST_IP = "10.100.0.2"
TARGET = ToListener(Address(HOST_IP, 10400))


class Namespace:
    """What is in the kernel, and what it refuses.

    Attributes:
        journal: what it was told, in order.
        captures: of the table; None while there is none.
        routes: the Service IPs that have one.
        refuses: calls that fail.
        turned_away: by the table's counter.
        changes: of the table, told at the next look.
        has_idle_hooks: the table has some that nobody needs.
    """

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.captures: dict[Frontend, Target] | None = None
        self.routes: set[str] = set()
        self.refuses: set[str] = set()
        self.turned_away = 0
        self.changes: tuple[str, ...] = ()
        self.has_idle_hooks = False

    def note(self, line: str) -> None:
        """Keep it, and fail if that is to be."""
        self.journal.append(line)
        if line.partition(" ")[0] in self.refuses:
            raise NetfilterError(f"{line}: Operation not permitted")


class InMemoryNftables:
    """Of `Nftables`, what this needs."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.guards: frozenset[Frontend] = frozenset()

    @property
    def captures(self) -> dict[Frontend, Target]:
        """Of `Nftables`."""
        return self._namespace.captures or {}

    def ensure(self) -> NodeState:
        """Of `Nftables`."""
        self._namespace.note("table")
        self._namespace.captures = self._namespace.captures or {}
        return NodeState(captures=dict(self._namespace.captures))

    def apply(self, change: CaptureChange) -> None:
        """Of `Nftables`."""
        self._namespace.note("captures")
        left = {key: each for key, each in self.captures.items() if key not in change.remove}
        self._namespace.captures = left | change.put

    def verify(self) -> tuple[str, ...]:
        """Of `Nftables`."""
        return self._namespace.changes

    def turned_away(self) -> int:
        """Of `Nftables`."""
        return self._namespace.turned_away

    @property
    def has_idle_hooks(self) -> bool:
        """Of `Nftables`."""
        return self._namespace.has_idle_hooks

    def prune(self) -> None:
        """Of `Nftables`."""
        self._namespace.note("prune")
        self._namespace.has_idle_hooks = False

    def remove(self) -> bool:
        """Of `Nftables`."""
        self._namespace.note("no-table")
        self._namespace.captures = None
        return True

    def close(self) -> None:
        """Of `Nftables`."""


class InMemoryRoutes:
    """Of `Routes`, what this needs."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def ensure(self, addresses: Iterable[str], _host_ip: str) -> None:
        """Of `Routes`."""
        self._namespace.note("routes")
        self._namespace.routes = set(addresses)

    def add(self, addresses: Collection[str], _host_ip: str) -> None:
        """Of `Routes`."""
        self._namespace.note(f"add {' '.join(addresses)}")
        self._namespace.routes |= set(addresses)

    def discard(self, addresses: Collection[str], _host_ip: str) -> None:
        """Of `Routes`."""
        self._namespace.note(f"discard {' '.join(addresses)}")
        self._namespace.routes -= set(addresses)

    def close(self) -> None:
        """Of `Routes`."""


class Nobody:
    """Nobody takes connections before us."""

    def look(self, _captures: Collection[Frontend]) -> None:
        """Of `BypassWatch`."""

    def close(self) -> None:
        """Of `BypassWatch`."""


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Nothing of ours is there."""
    made = Namespace()
    monkeypatch.setattr(kernel, "Nftables", lambda: InMemoryNftables(made))
    monkeypatch.setattr(kernel, "Routes", lambda: InMemoryRoutes(made))
    monkeypatch.setattr(kernel, "BypassWatch", Nobody)
    return made


@pytest.fixture
def ours(namespace: Namespace) -> Iterator[Kernel]:
    """Our part of it."""
    del namespace
    with Kernel([HOST_IP], Counters()) as made:
        yield made


def frontend(ip: str, port: int = 80) -> Frontend:
    return Frontend(Protocol.TCP, Address(ip, port))


def put(*frontends: Frontend) -> CaptureChange:
    return CaptureChange(put=dict.fromkeys(frontends, TARGET))


async def test_a_start_that_fails_at_the_routes_takes_its_table_away_again(
    namespace: Namespace, ours: Kernel
) -> None:
    namespace.refuses = {"routes"}
    with pytest.raises(NetfilterError, match="routes"):
        await ours.start()
    assert (namespace.captures, namespace.journal) == (None, ["table", "routes", "no-table"])


async def test_a_start_that_fails_leaves_an_earlier_daemon_s_table(
    namespace: Namespace, ours: Kernel
) -> None:
    namespace.captures = {frontend("10.3.0.1"): TARGET}
    namespace.refuses = {"routes"}
    with pytest.raises(NetfilterError):
        await ours.start()
    assert namespace.captures == {frontend("10.3.0.1"): TARGET}


async def test_a_start_adopts_captures_and_sees_to_their_routes(namespace: Namespace, ours: Kernel) -> None:
    namespace.captures = {frontend("10.3.0.1"): TARGET, frontend("10.3.0.1", 443): Refuse()}
    assert await ours.start() == NodeState(captures=namespace.captures)
    assert namespace.routes == {"10.3.0.1"}


async def test_a_route_is_there_before_its_capture_and_goes_after_the_last_one(
    namespace: Namespace, ours: Kernel
) -> None:
    await ours.start()
    namespace.journal.clear()
    http, https = frontend("10.3.0.1"), frontend("10.3.0.1", 443)
    await ours.apply(put(http))
    await ours.apply(put(https))
    await ours.apply(CaptureChange(remove=frozenset({http})))
    assert namespace.routes == {"10.3.0.1"}
    await ours.apply(CaptureChange(remove=frozenset({https})))
    assert namespace.journal == ["add 10.3.0.1", *["captures"] * 4, "discard 10.3.0.1"]


async def test_a_capture_that_is_refused_is_asked_for_again_with_its_route(
    namespace: Namespace, ours: Kernel
) -> None:
    await ours.start()
    namespace.refuses = {"captures"}
    with pytest.raises(NetfilterError):
        await ours.apply(put(frontend("10.3.0.1")))
    namespace.refuses.clear()
    namespace.journal.clear()
    await ours.apply(put(frontend("10.3.0.1")))
    assert namespace.journal == ["add 10.3.0.1", "captures"]
    await ours.apply(CaptureChange(remove=frozenset({frontend("10.3.0.1")})))
    assert namespace.routes == set()


async def test_what_the_kernel_refuses_is_counted(namespace: Namespace, ours: Kernel) -> None:
    await ours.start()
    namespace.refuses = {"captures"}
    with pytest.raises(NetfilterError):
        await ours.apply(put(frontend("10.3.0.1")))
    assert ours.counters.nftables_failures == {"IPv4": 1}


async def test_whom_the_kernel_turns_away_is_counted_once_also_when_the_table_is_made_anew(
    namespace: Namespace, ours: Kernel
) -> None:
    namespace.turned_away = 100  # that is what an earlier daemon has told of
    await ours.start()
    for counter, told in ((103, 3), (103, 3), (105, 5), (2, 7)):
        namespace.turned_away = counter
        await ours.repair()
        assert ours.counters.clients_turned_away == told


async def test_hooks_that_nobody_needs_go_once_nobody_has_needed_them_for_a_while(
    ours: Kernel, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_IDLE_REPAIRS", 2)
    for needed in (False, False, True, False, False):
        namespace.has_idle_hooks = not needed
        await ours.repair()
    assert "prune" not in namespace.journal
    for _ in range(3):
        await ours.repair()
    assert namespace.journal.count("prune") == 1


def test_flows_of_a_steered_frontend_may_lead_to_all_that_can_be_chosen() -> None:
    near, far = Address("10.0.1.2", 53), Address("10.0.2.2", 53)
    assert set(kernel.destinations(ToPods((near,), steered=True, others=(far,)))) == {near, far}
