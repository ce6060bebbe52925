"""How many Services and backends there are of each kind. Only what changes is counted anew."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.condition import REMOVED
from userproxy.model.metric import BETWEEN
from userproxy.model.service import EntryKind, TrafficPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from userproxy.control.tally import Tally
    from userproxy.model.address import Address
    from userproxy.model.condition import Condition
    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePort, ServicePortName

UP, UNUSED = "up", "unused"
_FOUND_DOWN = frozenset({"down", "ejected"})


class _Standing(NamedTuple):
    """How one Service port stands.

    Attributes:
        states: backends by state, as the control side has it.
        why_down: a key of `Figures.services_down`; empty while a backend is up.
        not_local: keys of `Figures.no_local_endpoints`.
    """

    states: Counter[str]
    why_down: str
    not_local: tuple[str, ...]


class Census:
    """Counts Service ports and their backends. Lives as long as the daemon.

    Args:
        node: this one's name.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._standings: dict[ServicePortName, _Standing] = {}
        self._states: Counter[str] = Counter()
        self._down: Counter[str] = Counter()
        self.not_local: Counter[str] = Counter()

    def take(
        self,
        service: ServicePort,
        endpoints: Iterable[Endpoint],
        conditions: Mapping[Address, Condition],
    ) -> None:
        """A Service port is there, or has changed."""
        self.drop(service.name)
        states = Counter(condition.state for condition in conditions.values())
        standing = _Standing(states, _why_down(states), tuple(_not_local(service, endpoints, self._node)))
        self._standings[service.name] = standing
        self._add(standing, 1)

    def drop(self, name: ServicePortName) -> None:
        """A Service port is gone."""
        standing = self._standings.pop(name, None)
        if standing is not None:
            self._add(standing, -1)

    def backends(
        self, tally: Tally, conditions: Mapping[ServicePortName, Mapping[Address, Condition]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """The backends by state, and the Service ports without any by reason, as workers have found them."""
        states, down = Counter(self._states), Counter(self._down)
        found: Counter[ServicePortName] = Counter()
        for (name, address), count in tally.backends.items():
            condition = conditions.get(name, {}).get(address)
            if condition is None:
                states[REMOVED] += bool(count.connections)
            elif condition.state == UP and count.state in _FOUND_DOWN:
                states[UP] -= 1
                states[count.state] += 1
                found[name] += 1
        for name, count_down in found.items():
            standing = self._standings.get(name)
            if standing is not None and standing.states[UP] == count_down:
                down["none-up"] += 1
        return dict(states), dict(down)

    def _add(self, standing: _Standing, sign: int) -> None:
        for state, count in standing.states.items():
            self._states[state] += sign * count
        if standing.why_down:
            self._down[standing.why_down] += sign
        for key in standing.not_local:
            self.not_local[key] += sign


def _why_down(states: Counter[str]) -> str:
    if states[UP]:
        return ""
    if not states.total():
        return "no-endpoints"
    return "not-here" if states[UNUSED] == states.total() else "none-up"


def _not_local(service: ServicePort, endpoints: Iterable[Endpoint], node: str) -> Iterator[str]:
    """Under which policies, by family, its traffic could go to an endpoint, were there one here."""
    here: dict[str, bool] = {}
    for endpoint in endpoints:
        if endpoint.ready or (endpoint.serving and endpoint.terminating):
            family = endpoint.address.family
            here[family] = here.get(family, False) or endpoint.node == node
    for policy, label, inside in (
        (service.internal_traffic_policy, "internal", True),
        (service.external_traffic_policy, "external", False),
    ):
        if policy is TrafficPolicy.LOCAL:
            entries = (each for each in service.entries if (each.kind is EntryKind.CLUSTER_IP) is inside)
            for family in sorted({each.address.family for each in entries}):
                if here.get(family) is False:
                    yield f"{family}{BETWEEN}{label}"
