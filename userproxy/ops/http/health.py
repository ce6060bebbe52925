"""Whether this daemon does its work, and whether load balancers should send traffic to this node. Pure.

As kube-proxy's `pkg/proxy/healthcheck/proxy_health.go` has it, with one difference: `/healthz` also fails
until the first sync is done, since a node that serves nothing yet should not be sent anything.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from userproxy.model.address import IpFamily
from userproxy.model.rows import SourceStatus

HANGING_SECONDS = 60.0
"""An update that has been waiting for so long will not be applied without help (kube-proxy: 2 syncs)."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's health at one moment.

    Attributes:
        now: seconds since the epoch.
        last_updated: when everything that was wanted was last applied, seconds since the epoch; None if
            it never was.
        pending_seconds: how long the oldest change has been waiting; None if there is none.
        eligible: this node exists in the cluster, and is not about to be deleted.
        source: where the Services come from.
        families: whose traffic the node carries; they are served together.
    """

    now: float
    last_updated: float | None
    pending_seconds: float | None
    eligible: bool
    source: SourceStatus
    families: tuple[IpFamily, ...] = (IpFamily.IPV4,)

    @property
    def alive(self) -> bool:
        """What `/livez` tells: nothing hangs, so that a restart would not help."""
        return self.pending_seconds is None or self.pending_seconds < HANGING_SECONDS

    @property
    def healthy(self) -> bool:
        """What `/healthz` tells: this node carries traffic to Services, and will go on doing so."""
        return self.alive and self.eligible and self.last_updated is not None

    @property
    def ready(self) -> bool:
        """What `/readyz` tells: what is wanted is served, on a node that is about to go too."""
        return self.alive and self.last_updated is not None

    def body(self, *, healthy: bool) -> bytes:
        """The JSON that is answered."""
        updated = _rfc3339(self.last_updated or 0.0)
        family = {"lastUpdated": updated, "healthy": self.alive}
        return msgspec.json.encode(
            {
                "lastUpdated": updated,
                "currentTime": _rfc3339(self.now),
                "nodeEligible": self.eligible,
                "healthy": healthy,
                "status": dict.fromkeys(self.families, family),
                "source": self.source,
            }
        )


def _rfc3339(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
