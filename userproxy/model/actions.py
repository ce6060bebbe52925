"""What leads from one state to another: ordered actions for the data side and the kernel."""

from __future__ import annotations

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import PoolName
from userproxy.model.state import Frontend, Perimeter, Serve, Target


class CaptureChange(msgspec.Struct, frozen=True):
    """One atomic batch for the kernel.

    Attributes:
        put: frontends to add, or to give a new target.
        remove: frontends to forget. Disjoint from `put`.
        guard: listeners to refuse to whoever was not redirected to them.
        unguard: listeners that are no longer ours. Disjoint from `guard`.
        claim: cluster IPs of whose ports those that are not captured are to be refused.
        disclaim: cluster IPs that are no longer ours. Disjoint from `claim`.
        ranges: frontends and the networks, in CIDR notation, whose clients alone may reach them; no networks:
            anybody may.
        watch: pods whose segments are to be dropped if conntrack calls them invalid.
        unwatch: pods that are none of ours. Disjoint from `watch`.
        perimeter: where the outside begins, if that is new.
        names: whose frontends those in `put` are, for people who list the rules.
        workers: how many accept clients at the listeners, if that is new.
        queues: in how many packets wait for a steering process, if that is new.
    """

    put: dict[Frontend, Target] = {}
    remove: frozenset[Frontend] = frozenset()
    guard: frozenset[Frontend] = frozenset()
    unguard: frozenset[Frontend] = frozenset()
    claim: frozenset[str] = frozenset()
    disclaim: frozenset[str] = frozenset()
    ranges: dict[Frontend, tuple[str, ...]] = {}
    watch: frozenset[str] = frozenset()
    unwatch: frozenset[str] = frozenset()
    perimeter: Perimeter | None = None
    names: dict[Frontend, str] = {}
    workers: int | None = None
    queues: int | None = None

    def __bool__(self) -> bool:
        return self != _NO_CHANGE


_NO_CHANGE = CaptureChange()


class Actions(msgspec.Struct, frozen=True):
    """Ordered actions, applied from the first field to the last, so that no packet is ever misdirected.

    Attributes:
        serve: listeners to open, and backends to change on open ones; before any packet is sent there.
        capture: one atomic batch for the kernel.
        forget: UDP frontends whose conntrack entries must go, or old flows would keep an old target; under
            each the addresses where flows may lead: those are spared. And TCP frontends that were not
            captured before: whoever came then, and was not answered.
        close: pools to stop accepting for; their established connections live on.
    """

    serve: tuple[Serve, ...] = ()
    capture: CaptureChange = CaptureChange()
    forget: dict[Frontend, tuple[Address, ...]] = {}
    close: tuple[PoolName, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.serve or self.capture or self.forget or self.close)
