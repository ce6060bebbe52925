"""Health of the pods that netfilter sends connections to by itself (redirect to pod).

No dial of ours tells how they are, and nobody is near to try another one: so those whose author asked for
checks are checked from the control side, and whoever is found down leaves the kernel's map.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from userproxy.dataplane.health.checker import Checker
from userproxy.dataplane.services import Counted, LiveService
from userproxy.model.plan import Frontend, Pool, ToPods, Wanted
from userproxy.model.service import Protocol
from userproxy.planner.difference import dropped, touched

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from userproxy.dataplane.poller import Poller
    from userproxy.model.service import ServicePortName


class CarriedPods:
    """Checks these pods, and says who may get the next connections. Lives as long as the daemon.

    Args:
        loop: that drives the checks.
        poller: of their sockets, driven by the same loop.

    Attributes:
        services: by Service port, those that are checked.
        checker: makes the checks.
        counted: what they have seen, ever.
        on_change: called when somebody else may get the next connections: call `steer`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: Poller) -> None:
        self.services: dict[ServicePortName, LiveService] = {}
        self.counted = Counted(Counter(), Counter(), Counter())
        self.on_change: Callable[[], object] | None = None
        self.checker = Checker(loop, poller, self.services)
        self._pools: dict[ServicePortName, Pool] = {}
        self._steered: dict[ServicePortName, dict[Frontend, ToPods]] = {}

    def steer(self, wanted: Wanted, actual: Wanted) -> Wanted:
        """The wanted state, without the pods that checks have found down.

        Args:
            wanted: by what the source says.
            actual: what was carried out last. Pods that an earlier daemon had taken out stay out until they
                have passed their checks.
        """
        self._follow(wanted.checked, actual)
        if not self._steered:
            return wanted
        captures = dict(wanted.captures)
        for targets in self._steered.values():
            captures.update(targets)
        return msgspec.structs.replace(wanted, captures=captures)

    def close(self) -> None:
        """Check nothing more."""
        self.checker.stop()

    def _follow(self, pools: dict[ServicePortName, Pool], actual: Wanted) -> None:
        for name in dropped(pools, self._pools):
            del self.services[name]
            self._steered.pop(name, None)
        for name in touched(pools, self._pools):
            service = self.services.get(name)
            if service is None:
                service = self._begin(pools[name], actual)
            else:
                service.update(pools[name])
            self._weigh(service)
        self._pools = pools

    def _begin(self, pool: Pool, actual: Wanted) -> LiveService:
        service = self.services[pool.service] = LiveService(pool, counted=self.counted)
        service.on_change = self._changed
        targets = {actual.captures.get(frontend) for frontend in _frontends(pool)}
        carried = {pod for target in targets if isinstance(target, ToPods) for pod in target.pods}
        if carried:
            service.begin_with(carried)
        return service

    def _changed(self, service: LiveService) -> None:
        self._weigh(service)
        if self.on_change is not None:
            self.on_change()

    def _weigh(self, service: LiveService) -> None:
        """Note where its packets go, if that is elsewhere than the source says."""
        pool = service.pool
        pods = tuple(live.address for live in service.rotation.first)
        if pods == tuple(backend.address for backend in pool.backends):
            self._steered.pop(pool.service, None)
        else:
            self._steered[pool.service] = dict.fromkeys(_frontends(pool), ToPods(pods))


def _frontends(pool: Pool) -> list[Frontend]:
    return [Frontend(Protocol.TCP, address) for address in pool.frontends]
