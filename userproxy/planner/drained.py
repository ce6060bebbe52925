"""Pods that an operator has drained. They stay out, over updates, until he undoes it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.filter import is_backend
from userproxy.model.snapshot import Problem, Snapshot

if TYPE_CHECKING:
    from userproxy.model.address import Address
    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePortName


class Drained:
    """Addresses that get no new connections, of every Service; with `ANY_PORT`, every port of an IP.

    Lives as long as the daemon.
    """

    def __init__(self) -> None:
        self._addresses: frozenset[Address] = frozenset()
        self._before: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        self._marked: dict[ServicePortName, tuple[Endpoint, ...]] = {}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What is drained, sorted."""
        return tuple(sorted(self._addresses))

    def add(self, address: Address) -> None:
        """Take it out."""
        self._change(self._addresses | {address})

    def remove(self, address: Address) -> bool:
        """Undo that.

        Returns:
            Whether it was out, under this very address.
        """
        known = address in self._addresses
        self._change(self._addresses - {address})
        return known

    def mark(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the drained endpoints marked; what does not change keeps its identity."""
        if not self._addresses:
            return snapshot
        marked = {}
        for name, endpoints in snapshot.endpoints.items():
            if self._before.get(name) is endpoints:
                marked[name] = self._marked[name]
            else:
                marked[name] = self._mark(endpoints)
        self._before, self._marked = dict(snapshot.endpoints), marked
        return msgspec.structs.replace(snapshot, endpoints=marked)

    def idle(self, marked: Snapshot) -> tuple[Problem, ...]:
        """A problem for each drained address that no endpoint has: its pod has gone, another may get it."""
        if not self._addresses:
            return ()
        found = {
            endpoint.address
            for endpoints in marked.endpoints.values()
            for endpoint in endpoints
            if endpoint.drained
        }
        return tuple(
            _idle_problem(address)
            for address in self.addresses
            if not any(is_backend(address, each) for each in found)
        )

    def _change(self, addresses: frozenset[Address]) -> None:
        if addresses != self._addresses:
            self._addresses = addresses
            self._before, self._marked = {}, {}

    def _mark(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        marked = tuple(
            msgspec.structs.replace(endpoint, drained=True) if self._is_out(endpoint) else endpoint
            for endpoint in endpoints
        )
        return marked if any(endpoint.drained for endpoint in marked) else endpoints

    def _is_out(self, endpoint: Endpoint) -> bool:
        return any(is_backend(address, endpoint.address) for address in self._addresses)


def _idle_problem(address: Address) -> Problem:
    shown = str(address) if address.port else address.ip
    message = f"drained by an operator, and no backend has it any more: `userproxy drain --undo {shown}`"
    return Problem(shown, "DrainedBackendGone", message)
