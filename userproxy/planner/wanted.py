"""From a Snapshot to the wanted state of the data side and the kernel.

A snapshot may hold thousands of Service ports of which one changed. So what each came to is kept for as long
as it is made of the same values, and whatever did not change keeps its identity, up to the whole state.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import msgspec

from userproxy.model.endpoint import Endpoint
from userproxy.model.plan import Frontend, Serve, Target, Wanted
from userproxy.model.service import Path, ServicePort, ServicePortName
from userproxy.planner.outcome import Outcome, Place, needs_host_port, outcome_of, without_conflicts

if TYPE_CHECKING:
    from userproxy.model.snapshot import Node, Problem, Snapshot
    from userproxy.planner.ports import PortBook

K = TypeVar("K")
V = TypeVar("V")


class _Made(msgspec.Struct, frozen=True, eq=False):
    """An outcome, and what it was made of. Compared by identity."""

    service: ServicePort
    endpoints: tuple[Endpoint, ...]
    needs_port: bool
    port: int | None
    outcome: Outcome


class Planner:
    """Makes the wanted state of one snapshot after another. Lives as long as the daemon."""

    def __init__(self, book: PortBook, host_ip: str, mode: Path) -> None:
        """Plan for listeners on a host IP.

        Args:
            book: gives the host ports; each call of `wanted` changes it.
            host_ip: of the listeners.
            mode: the path of Services that do not choose one.
        """
        self._book = book
        self._host_ip = host_ip
        self._mode = mode
        self._place: Place | None = None
        self._made: dict[ServicePortName, _Made] = {}
        self._wanted = Wanted()
        self._problems: tuple[Problem, ...] = ()

    def wanted(self, snapshot: Snapshot, node: Node, actual: Wanted) -> tuple[Wanted, tuple[Problem, ...]]:
        """The state that a snapshot asks for.

        Args:
            snapshot: the desired state.
            node: that this daemon runs on.
            actual: the state that was carried out so far. A Service port that is no longer wanted keeps its
                host port until its listener is closed there; only then may another one have it.

        Returns:
            The state, and what users must know of it, sorted; the same objects as before if nothing changed.
            A Service port that waits for the host port of a listener that is yet to be closed gets it in the
            next round: go on until the plan is empty.
        """
        self._release_closed(actual)
        place = Place(node, self._host_ip, self._mode, self._book.range)
        if place != self._place:
            self._place = place
            self._made = {}
            self._wanted = Wanted()
        stale, without_port = self._changed(snapshot, place)
        stale.update(dict.fromkeys(self._book.assign(sorted(without_port))))
        new = {name: self._make(name, snapshot, place) for name in stale}
        old = [self._made[name].outcome for name in stale if name in self._made]
        self._made.update(new)
        if len(self._made) != len(snapshot.services):
            gone = self._made.keys() - snapshot.services.keys()
            old += [self._made.pop(name).outcome for name in gone]
        if old or new:
            self._merge(snapshot, old, [made.outcome for made in new.values()])
        return self._wanted, self._problems

    def _release_closed(self, actual: Wanted) -> None:
        """Give up the host ports that were not wanted in the last round, once their listeners are closed."""
        if len(self._book.live) == sum(1 for made in self._made.values() if made.port is not None):
            return
        self._book.release(
            sorted(
                name
                for name in self._book.live
                if ((made := self._made.get(name)) is None or made.port is None) and name not in actual.serves
            )
        )

    def _changed(
        self, snapshot: Snapshot, place: Place
    ) -> tuple[dict[ServicePortName, None], list[ServicePortName]]:
        """Whose outcome is to be made (anew), and who lacks a host port."""
        stale: dict[ServicePortName, None] = {}
        without_port: list[ServicePortName] = []
        live = self._book.live
        for name, service in snapshot.services.items():
            made = self._made.get(name)
            if made is None or made.service is not service:
                made = None
                needs_port = needs_host_port(service, place)
            else:
                needs_port = made.needs_port
            port = live.get(name) if needs_port else None
            if needs_port and port is None:
                without_port.append(name)
            if made is None or made.port != port or made.endpoints is not snapshot.endpoints.get(name, ()):
                stale[name] = None
        return stale, without_port

    def _make(self, name: ServicePortName, snapshot: Snapshot, place: Place) -> _Made:
        service = snapshot.services[name]
        endpoints = snapshot.endpoints.get(name, ())
        needs_port = needs_host_port(service, place)
        port = self._book.live.get(name) if needs_port else None
        return _Made(service, endpoints, needs_port, port, outcome_of(service, endpoints, port, place))

    def _merge(self, snapshot: Snapshot, old: list[Outcome], new: list[Outcome]) -> None:
        """Put new outcomes in the place of old ones; start from nothing while a frontend is claimed twice."""
        outcomes = [made.outcome for made in self._made.values()]
        claims = sum(len(outcome.captures) for outcome in outcomes)
        wanted = _replaced(self._wanted, old, new)
        if len(wanted.captures) != claims:
            outcomes = without_conflicts([self._made[name].outcome for name in snapshot.services])
            wanted = _replaced(Wanted(), [], outcomes)
        self._wanted = wanted
        self._problems = tuple(sorted(chain.from_iterable(outcome.problems for outcome in outcomes)))


def _replaced(wanted: Wanted, old: list[Outcome], new: list[Outcome]) -> Wanted:
    return Wanted(
        serves=_patched(wanted.serves, _serves(old), _serves(new)),
        captures=_patched(wanted.captures, _captures(old), _captures(new)),
        paths=_patched(wanted.paths, _paths(old), _paths(new)),
        guards=_exchanged(wanted.guards, _guards(old), _guards(new)),
    )


def _exchanged(whole: frozenset[Frontend], old: set[Frontend], new: set[Frontend]) -> frozenset[Frontend]:
    """The whole with new members in the place of old ones; the very same if they are equal."""
    return whole if old == new else whole - old | new


def _patched(whole: dict[K, V], old: dict[K, V], new: dict[K, V]) -> dict[K, V]:
    """The whole with new entries in the place of old ones; the very same if they are equal."""
    if old == new:
        return whole
    patched = dict(whole)
    for key in old.keys() - new.keys():
        patched.pop(key, None)
    patched.update(new)
    return patched


def _serves(outcomes: list[Outcome]) -> dict[ServicePortName, Serve]:
    return {outcome.name: outcome.serve for outcome in outcomes if outcome.serve is not None}


def _captures(outcomes: list[Outcome]) -> dict[Frontend, Target]:
    return dict(chain.from_iterable(outcome.captures.items() for outcome in outcomes))


def _guards(outcomes: list[Outcome]) -> set[Frontend]:
    return {outcome.guard for outcome in outcomes if outcome.guard is not None}


def _paths(outcomes: list[Outcome]) -> dict[ServicePortName, Path]:
    return {outcome.name: outcome.path for outcome in outcomes}
