"""How each backend is, by what the control side wants of it: what the source says, and where traffic goes.

What the workers have seen of it comes on top, where it is shown (`userproxy.control.view`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.control.census import UNUSED, Census
from userproxy.model.condition import Condition
from userproxy.model.service import PoolName
from userproxy.model.snapshot import EMPTY, Snapshot
from userproxy.model.state import NodeState, ToPods
from userproxy.model.versioned import dropped, touched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from userproxy.control.tally import Tally
    from userproxy.model.address import Address
    from userproxy.model.endpoint import Endpoint
    from userproxy.model.service import ServicePort, ServicePortName


class Conditions:
    """The condition of each endpoint of each Service port. Lives as long as the daemon.

    Args:
        clock: seconds since the epoch.
        node: this one's name.

    Attributes:
        census: how many there are of each kind.
    """

    def __init__(self, clock: Callable[[], float], node: str = "") -> None:
        self._clock = clock
        self.census = Census(node)
        self._snapshot: Snapshot = EMPTY
        self._state = NodeState()
        self._conditions: dict[ServicePortName, dict[Address, Condition]] = {}

    def of(self, name: ServicePortName) -> Mapping[Address, Condition]:
        """The conditions of a Service port's endpoints, by address."""
        return self._conditions.get(name, {})

    def counted(self, tally: Tally) -> tuple[dict[str, int], dict[str, int]]:
        """As of `Census.backends`."""
        return self.census.backends(tally, self._conditions)

    def observe(self, snapshot: Snapshot, state: NodeState) -> None:
        """Take in the state that was applied. Only what it changes is judged anew."""
        before, self._snapshot = self._snapshot, snapshot
        last, self._state = self._state, state
        for name in dropped(snapshot.services, before.services):
            self._conditions.pop(name, None)
            self.census.drop(name)
        for name in _to_judge(snapshot, before, state, last):
            if name in snapshot.services:
                endpoints = snapshot.endpoints.get(name, ())
                judged = self._conditions[name] = self._judge(name, endpoints)
                self.census.take(snapshot.services[name], endpoints, judged)

    def eligible(self, name: PoolName) -> set[Address]:
        """The endpoints that may take the traffic of a pool."""
        pool = self._state.serves.get(name) or self._state.checked.get(name)
        found = {backend.address for backend in pool.backends} if pool else set()
        for frontend in self._state.frontends.get(name, ()):
            target = self._state.captures.get(frontend)
            found.update(target.pods if isinstance(target, ToPods) else ())
        return found

    def _judge(self, name: ServicePortName, endpoints: tuple[Endpoint, ...]) -> dict[Address, Condition]:
        service = self._snapshot.services[name]
        picked = set().union(*map(self.eligible, PoolName.all_of(name)))
        known = self._conditions.get(name, {})
        now = self._clock()
        judged = {}
        for endpoint in endpoints:
            state, reason = _state_of(endpoint, picked=endpoint.address in picked)
            reason = reason or self._why_unused(endpoint, service) if state == UNUSED else reason
            former = known.get(endpoint.address)
            since = former.since if former is not None and former.state == state else now
            judged[endpoint.address] = Condition(state, reason, since)
        return judged

    def _why_unused(self, endpoint: Endpoint, service: ServicePort) -> str:
        family = endpoint.address.family
        if all(entry.address.family is not family for entry in service.entries):
            return f"the Service has no {family} address"
        pools = (pool for pool in PoolName.all_of(service.name) if pool.family is family)
        if not any(pool in self._state.frontends for pool in pools):
            return f"this node has no {family} address"
        return "other endpoints are nearer, or the traffic policy excludes it"


def _to_judge(
    snapshot: Snapshot, before: Snapshot, state: NodeState, last: NodeState
) -> dict[ServicePortName, None]:
    """Whose backends may stand otherwise than before: told by what they are made of, or by the targets."""
    names = [
        *touched(snapshot.services, before.services),
        *touched(snapshot.endpoints, before.endpoints),
        *dropped(snapshot.endpoints, before.endpoints),
    ]
    pools = [
        *touched(state.serves, last.serves),
        *dropped(state.serves, last.serves),
        *touched(state.checked, last.checked),
        *dropped(state.checked, last.checked),
        *(state.pools[key] for key in touched(state.captures, last.captures) if key in state.pools),
    ]
    return dict.fromkeys([*names, *(pool.service_port for pool in pools)])


def _state_of(endpoint: Endpoint, *, picked: bool) -> tuple[str, str]:
    if endpoint.drained:
        return "draining", "drained by an operator"
    if picked:
        return "up", "terminating, and nothing else is ready" if not endpoint.ready else ""
    if endpoint.terminating:
        return "draining", "terminating"
    if not endpoint.ready:
        return "down", "not ready"
    return UNUSED, ""
