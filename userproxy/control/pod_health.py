"""Health of the pods that netfilter sends connections to by itself (redirect to pod).

No dial of ours tells how they are, and nobody is near to try another one: so they are checked from the
control side, and whoever is found down leaves the kernel's map. Services whose author does not say otherwise
are checked while they are in use, which netfilter notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.backends.check import is_due_at_all
from userproxy.backends.checker import Checker
from userproxy.backends.service import LiveService
from userproxy.control.substitutes import Substitutes
from userproxy.model import messages
from userproxy.model.counters import Counters
from userproxy.model.settings import HealthCheck
from userproxy.model.state import Frontend, NodeState, Pool, ToPods
from userproxy.model.versioned import dropped, touched

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Mapping

    from userproxy.model.address import Address
    from userproxy.model.service import PoolName
    from userproxy.model.state import Target
    from userproxy.net.poller import Poller


class PodHealth:
    """Checks these pods, and says who may get the next connections. Lives as long as the daemon.

    Args:
        loop: that drives the checks.
        poller: of their sockets, driven by the same loop.

    Attributes:
        services: by Service port, those that are checked.
        checker: makes the checks.
        counters: what they have counted.
        on_change: called when somebody else may get the next connections: call `restrict`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: Poller) -> None:
        self.services: dict[PoolName, LiveService] = {}
        self.counters = Counters()
        self.on_change: Callable[[], object] | None = None
        self.checker = Checker(loop, poller, self.services, self.counters)
        self._clock = poller.clock
        self._owners: dict[Frontend, PoolName] = {}  # of those that are checked while in use
        self._wanted = NodeState()
        self._pools: Mapping[PoolName, Pool] = {}
        self._frontends: dict[PoolName, tuple[Frontend, ...]] = {}  # of these
        self._restricted: dict[PoolName, tuple[Address, ...]] = {}  # where they lead instead
        self._substitutes = Substitutes()

    def restrict(self, wanted: NodeState, actual: NodeState) -> NodeState:
        """The wanted state, without the pods that checks have found down.

        Args:
            wanted: by what the source says.
            actual: what was applied last. Pods that an earlier daemon has not in the kernel's map, be it
                that it had taken them out or that they came later, stay out until they have passed their
                checks.
        """
        self._follow(wanted, actual)
        captures = wanted.captures
        restricted: dict[Frontend, Target] = {
            key: msgspec.structs.replace(target, pods=pods)
            for name, pods in self._restricted.items()
            for key in self._frontends[name]
            if isinstance(target := captures.get(key), ToPods)  # a node port on loopback leads to a listener
        }
        given = self._substitutes.put(captures, restricted)
        return wanted if given is captures else msgspec.structs.replace(wanted, captures=given)

    @property
    def wants_to_know(self) -> bool:
        """Whether it matters to anybody which frontends are in use."""
        return bool(self._owners)

    def notice(self, used: Collection[Frontend]) -> None:
        """New connections to these frontends have been sent to pods lately."""
        now = self._clock()
        for name in {self._owners[frontend] for frontend in used if frontend in self._owners}:
            service = self.services.get(name) or self._begin(self._pools[name])
            service.used = now
        for name, service in list(self.services.items()):
            if any(live.down for live in service.backends):
                service.used = now  # somebody must find out when it is back
            elif not is_due_at_all(service.pool.settings.check, now, service.used):
                del self.services[name]

    def report(self) -> messages.ServiceCounts:
        """What the checks have found."""
        found = (service.report() for service in self.services.values())
        return messages.ServiceCounts(services=tuple(count for count in found if count.backends))

    def close(self) -> None:
        """Check nothing more."""
        self.checker.stop()

    def _follow(self, wanted: NodeState, actual: NodeState) -> None:
        pools = wanted.checked
        gone, new = dropped(pools, self._pools), touched(pools, self._pools)
        frontends, before = wanted.frontends, self._wanted.frontends
        new += [name for name in (*touched(frontends, before), *dropped(frontends, before)) if name in pools]
        for name in (*gone, *new):
            for frontend in self._frontends.pop(name, ()):
                self._owners.pop(frontend, None)
        for name in gone:
            self.services.pop(name, None)
            self._restricted.pop(name, None)
        for name in dict.fromkeys(new):
            self._frontends[name] = frontends.get(name, ())
            self._take(pools[name], actual)
        self._pools, self._wanted = pools, wanted

    def _take(self, pool: Pool, actual: NodeState) -> None:
        name = pool.name
        on_use = pool.settings.check.kind is HealthCheck.AUTO
        if on_use:
            self._owners.update(dict.fromkeys(self._frontends[name], name))
        service = self.services.get(name)
        if service is not None:
            service.update(pool)
        else:
            # What this daemon has had sent elsewhere says nothing of a pod.
            adopted = (key for key in self._frontends[name] if key not in self._wanted.captures)
            known = set() if name in self._pools else _redirected_to(adopted, actual)
            out = bool(known) and any(backend.address not in known for backend in pool.backends)
            if on_use and not out:
                return
            service = self._begin(pool)
            if out:
                service.begin_with(known)
        self._weigh(service)

    def _begin(self, pool: Pool) -> LiveService:
        service = LiveService(pool, clock=self._clock, counters=self.counters)
        service.used = self._clock()
        service.on_change = self._changed
        self.services[pool.name] = service
        return service

    def _changed(self, service: LiveService) -> None:
        if self.services.get(service.pool.name) is not service:
            return  # a check had been under way when it was given up
        self._weigh(service)
        if self.on_change is not None:
            self.on_change()

    def _weigh(self, service: LiveService) -> None:
        """Note where its packets go, if that is elsewhere than the source says."""
        pool = service.pool
        pods = tuple(live.address for live in service.rotation.first)
        if pods == tuple(backend.address for backend in pool.backends):
            self._restricted.pop(pool.name, None)
        else:
            self._restricted[pool.name] = pods


def _redirected_to(frontends: Iterable[Frontend], actual: NodeState) -> set[Address]:
    """The pods that an earlier daemon has their packets sent to; none if there was no such daemon."""
    targets = {actual.captures.get(frontend) for frontend in frontends}
    return {pod for target in targets if isinstance(target, ToPods) for pod in target.pods}
