"""What Prometheus scrapes. Labels have few values, so the size does not grow with the number of Services.

`kubeproxy_*`, `rest_client_*` and `kubernetes_*` are kube-proxy's own names, for dashboards and alerts that
are there already. What is shown is declared in `userproxy.model.counters` and `userproxy.model.figures`.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from userproxy import __version__
from userproxy.model.address import IpFamily
from userproxy.model.figures import BUILD_LABELS, Moments
from userproxy.model.metric import BETWEEN
from userproxy.model.versioned import dropped, touched
from userproxy.ops.http.exposition import Exposition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from userproxy.model.counters import Counters
    from userproxy.model.figures import Figures
    from userproxy.model.service import ServicePortName
    from userproxy.model.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics of one daemon.

    Args:
        mode: a label of `userproxy_build_info`.
        counters: of the control process; what happens is counted there.
        families: tells whose traffic the node carries.
        per_service: whether single Services are shown.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        mode: str,
        counters: Counters,
        families: Callable[[], Collection[str]] = lambda: (IpFamily.IPV4,),
        *,
        per_service: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self._families = families
        self._clock = clock
        self._began = clock()
        self._triggers: dict[str, list[float]] = {}
        self._is_full = True
        build = (f"v{__version__}", *__version__.split(".")[:2], f"linux/{platform.machine()}")
        kubernetes = dict(zip(("git_version", "major", "minor", "platform"), build, strict=True))
        self._moments = Moments(
            build={BETWEEN.join((__version__, mode)): 1},
            kubernetes_build={BETWEEN.join(kubernetes.get(label, "") for label in BUILD_LABELS): 1},
        )
        self._exposition = Exposition(per_service=per_service)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self._exposition)

    def changed(self, before: Snapshot | None, after: Snapshot) -> None:
        """The desired state has changed."""
        moments, counters = self._moments, self._counters
        services = _differences(before.services if before else {}, after.services, _families_of_service)
        endpoints = _differences(before.endpoints if before else {}, after.endpoints, _families_of_endpoints)
        for family in self._families():
            moments.last_queued[family] = self._clock()
            for changes, counted, pending in (
                (services, counters.changed_services, moments.pending_services),
                (endpoints, counters.changed_endpoints, moments.pending_endpoints),
            ):
                counted[family] = counted.get(family, 0) + changes[family]
                pending[family] = pending.get(family, 0) + changes[family]
        if before is None or after.triggers is not before.triggers:
            for family, when in after.triggers:
                if when >= self._began:  # or else it is in effect for long, and only we are new
                    self._triggers.setdefault(family, []).append(when)

    def applied(self, seconds: float) -> None:
        """The desired state has been applied, in so many seconds."""
        counters, now = self._counters, self._clock()
        triggers, self._triggers = self._triggers, {}
        for family in self._families():
            counters.sync_times[family].observe(seconds)
            (counters.full_sync_times if self._is_full else counters.partial_sync_times)[family].observe(
                seconds
            )
            self._moments.last_applied[family] = now
            self._moments.pending_services[family] = self._moments.pending_endpoints[family] = 0
            for when in triggers.get(family, ()):
                counters.programming_times[family].observe(max(0.0, now - when))
        self._is_full = False

    def failed(self) -> None:
        """Not everything could be applied."""
        self._counters.sync_failures += 1
        self._is_full = True

    def probed(self, path: str, code: int) -> None:
        """`healthz` or `livez` was answered."""
        answers: dict[str, int] = getattr(self._counters, path)
        answers[str(code)] += 1

    def lagged(self, seconds: float) -> None:
        """A timer of the control process came so late."""
        self._counters.loop_lag["control"].observe(seconds)

    def render(self, figures: Figures, counters: Counters) -> bytes:
        """The text that is scraped. Takes milliseconds, so that it belongs in a thread.

        Args:
            figures: of this moment.
            counters: of all processes of this daemon, those that are gone included.
        """
        self._exposition.families = tuple(map(str, self._families()))
        self._exposition.shown = (counters, figures, self._moments)
        return generate_latest(self._registry)


def _differences(
    before: Mapping[ServicePortName, Any],
    after: Mapping[ServicePortName, Any],
    families: Callable[[Any], set[IpFamily]],
) -> Counter[str]:
    """How many values differ, by family; those that did not change keep their identity.

    What has no address, before and after, is a difference of every family.
    """
    found: Counter[str] = Counter()
    for name in (*touched(after, before), *dropped(after, before)):
        values = [each[name] for each in (before, after) if name in each]
        found.update(set().union(*map(families, values)) or IpFamily)
    return found


def _families_of_service(service: Any) -> set[IpFamily]:  # noqa: ANN401 - a `ServicePort`
    return {entry.address.family for entry in service.entries}


def _families_of_endpoints(endpoints: Any) -> set[IpFamily]:  # noqa: ANN401 - a tuple of `Endpoint`
    return {endpoint.address.family for endpoint in endpoints}
