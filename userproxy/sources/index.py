"""The objects a source knows at the moment, and the Snapshot they make. Pure.

An index lives as long as its source. Objects are put and removed in any order; `snapshot` then works on what
they touched, not on everything: beside that it copies a dictionary of references.

Services and EndpointSlices never wait for each other: endpoints are kept by the Service port they name, be
that Service there or not, so one that is deleted and created again has its endpoints at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import msgspec

from userproxy.model.endpoint import Endpoint
from userproxy.model.service import EntryKind
from userproxy.model.snapshot import EMPTY, Problem, Snapshot
from userproxy.model.state import Frontend
from userproxy.model.versioned import patched
from userproxy.sources.decode import DecodedObject, Kind, ObjectKey, ServiceObject, SliceObject, merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from userproxy.model.address import IpFamily
    from userproxy.model.service import Entry, ServicePort, ServicePortName

_Rank = tuple[str, int]
_Value = TypeVar("_Value")
_Slices = dict[ObjectKey, tuple[Endpoint, ...]]


class ObjectIndex:
    """Services and EndpointSlices by name.

    Where two Services claim the same address, port and protocol, the older keeps it; without a creation time,
    the one of lower rank, then of lower name. The other has a `PortConflict` problem, and gets the address as
    soon as the first lets go of it. A Service port left without any address is not in the Snapshot.
    """

    def __init__(self) -> None:
        self._services: dict[ObjectKey, tuple[ServiceObject, _Rank]] = {}
        self._claims: dict[Frontend, list[ObjectKey]] = {}
        self._slices: dict[ObjectKey, SliceObject] = {}
        self._slices_of: dict[ServicePortName, _Slices] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._stale_services: dict[ObjectKey, frozenset[ServicePortName]] = {}
        self._stale_endpoints: set[ServicePortName] = set()
        self._problems_changed = False
        self._triggers: list[tuple[IpFamily, float]] = []
        self._snapshot = EMPTY

    def put(self, new: DecodedObject, rank: _Rank = ("", 0)) -> None:
        """Add an object, or replace the one of its name.

        Args:
            new: the object.
            rank: its place among Services without a creation time: file and position.
        """
        if isinstance(new, SliceObject):
            old = self._slices.get(new.key)
            if old is not new and old != new:
                self._replace_slice(new.key, new)
                if new.triggered is not None:
                    self._triggers.append((new.family, new.triggered))
        elif self._services.get(new.key) != (new, rank):
            self._replace_service(new.key, (new, rank))

    def remove(self, key: ObjectKey) -> None:
        """Forget an object; one that is not there is none of our business."""
        if key.kind is Kind.SERVICE:
            self._replace_service(key, None)
        else:
            self._replace_slice(key, None)

    def keys(self) -> frozenset[ObjectKey]:
        """Every object that is there, served or not."""
        return frozenset(self._services) | frozenset(self._slices)

    def report(self, owner: str, problems: Iterable[Problem]) -> None:
        """Replace the problems of an owner, such as a file, that belong to no object."""
        self._set_problems(owner, tuple(problems))

    def snapshot(self) -> Snapshot:
        """The desired state now: the very same value as the last time if nothing has changed."""
        previous = self._snapshot
        services = self._current_services(previous.services)
        endpoints = self._current_endpoints(previous.endpoints)
        problems = previous.problems
        if self._problems_changed:
            problems = tuple(sorted({problem for some in self._problems.values() for problem in some}))
            self._problems_changed = False
        if (
            services is not previous.services
            or endpoints is not previous.endpoints
            or problems != previous.problems
        ):
            self._snapshot = Snapshot(services, endpoints, problems, triggers=tuple(self._triggers))
            self._triggers.clear()
        return self._snapshot

    def _replace_slice(self, key: ObjectKey, new: SliceObject | None) -> None:
        old = self._slices.pop(key, None)
        for name in old.endpoints if old else ():
            slices = self._slices_of[name]
            del slices[key]
            if not slices:
                del self._slices_of[name]
            self._stale_endpoints.add(name)
        if new:
            self._slices[key] = new
            for name, endpoints in new.endpoints.items():
                self._slices_of.setdefault(name, {})[key] = endpoints
                self._stale_endpoints.add(name)
        self._set_problems(str(key), new.problems if new else ())

    def _replace_service(self, key: ObjectKey, new: tuple[ServiceObject, _Rank] | None) -> None:
        old = self._services.pop(key, None)
        if old:
            self._touch(key, old[0])
            for frontend in _frontends(old[0]):
                claimants = self._claims[frontend]
                claimants.remove(key)
                if not claimants:
                    del self._claims[frontend]
        if new:
            self._services[key] = new
            for frontend in _frontends(new[0]):
                self._claims.setdefault(frontend, []).append(key)
            self._touch(key, new[0])

    def _touch(self, key: ObjectKey, service: ServiceObject) -> None:
        """This Service, and each that claims one of its frontends, must be looked at again."""
        self._stale_services[key] = self._stale_services.get(key, frozenset()) | {
            port.name for port in service.ports
        }
        for frontend in _frontends(service):
            for claimant in self._claims.get(frontend, ()):
                self._stale_services.setdefault(claimant, frozenset())

    def _set_problems(self, owner: str, problems: tuple[Problem, ...]) -> None:
        if self._problems.get(owner, ()) == problems:
            return
        self._problems_changed = True
        if problems:
            self._problems[owner] = problems
        else:
            del self._problems[owner]

    def _current_services(
        self, previous: Mapping[ServicePortName, ServicePort]
    ) -> Mapping[ServicePortName, ServicePort]:
        wanted: dict[ServicePortName, ServicePort | None] = {}
        for key, names in self._stale_services.items():
            ports, problems = self._resolve(key)
            self._set_problems(str(key), problems)
            wanted |= dict.fromkeys(names - ports.keys())
            wanted |= {name: port if port.entries else None for name, port in ports.items()}
        self._stale_services.clear()
        return _current(previous, wanted)

    def _resolve(self, key: ObjectKey) -> tuple[dict[ServicePortName, ServicePort], tuple[Problem, ...]]:
        """The ports of a Service with the frontends that are its own, and what is wrong with it."""
        if key not in self._services:
            return {}, ()
        service = self._services[key][0]
        ports, problems = {}, list(service.problems)
        for port in service.ports:
            kept = []
            for entry in port.entries:
                winner = min(self._claims[Frontend(port.protocol, entry.address)], key=self._seniority)
                if winner == key:
                    kept.append(entry)
                    continue
                message = (
                    f"{_said(entry)}/{port.protocol} belongs to {winner}: give {key} another {_part(entry)}"
                )
                problems.append(Problem(str(port.name), "PortConflict", message))
            ports[port.name] = port if len(kept) == len(port.entries) else _with_entries(port, kept)
        return ports, tuple(problems)

    def _seniority(self, key: ObjectKey) -> tuple[float, _Rank, ObjectKey]:
        service, rank = self._services[key]
        return math.inf if service.created is None else service.created, rank, key

    def _current_endpoints(
        self, previous: Mapping[ServicePortName, tuple[Endpoint, ...]]
    ) -> Mapping[ServicePortName, tuple[Endpoint, ...]]:
        wanted = {name: _merge_slices(self._slices_of.get(name, {})) for name in self._stale_endpoints}
        self._stale_endpoints.clear()
        return _current(previous, wanted)


def _frontends(service: ServiceObject) -> Iterable[Frontend]:
    return (Frontend(port.protocol, entry.address) for port in service.ports for entry in port.entries)


def _said(entry: Entry) -> str:
    return f"node port {entry.address.port}" if entry.kind is EntryKind.NODE_PORT else str(entry.address)


def _part(entry: Entry) -> str:
    return "one" if entry.kind is EntryKind.NODE_PORT else "address or port"


def _with_entries(port: ServicePort, entries: Iterable[Entry]) -> ServicePort:
    return msgspec.structs.replace(port, entries=tuple(entries))


def _merge_slices(slices: _Slices) -> tuple[Endpoint, ...] | None:
    if len(slices) == 1:
        return next(iter(slices.values()))
    return merge(endpoint for key in sorted(slices) for endpoint in slices[key]) or None


def _current(
    previous: Mapping[ServicePortName, _Value], wanted: Mapping[ServicePortName, _Value | None]
) -> Mapping[ServicePortName, _Value]:
    """`previous` with what is wanted; None stands for absence."""
    put = {name: value for name, value in wanted.items() if value is not None}
    return patched(previous, put, drop=wanted)
