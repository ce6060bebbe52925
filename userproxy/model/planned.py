"""What an operator sees of a plan. The fields are an interface: they may be added to, never renamed."""

from __future__ import annotations

import msgspec

SERVED, HELD, REFUSED, DROPPED, LEFT_OUT = "served", "held", "refused", "dropped", "left-out"


class PlannedRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one Service port comes to, or those entries of it that share a policy and a family.

    Attributes:
        service: `ns/name:port`.
        path: `redirect-to-host`, `redirect-to-pod` or `steered`.
        policy: `Cluster`, or `Local`: only backends on this node are picked.
        family: `IPv4` or `IPv6`.
        outcome: `served`; `held`: clients wait for an endpoint; `refused` or `dropped`, at once; `left-out`:
            nothing becomes of its packets here.
        reason: why it is not served; empty if it is.
        entries: how it is reached, each its kind and its address: `cluster-ip 10.3.241.152:80`.
        listener: our host port as `ip:port`; None where netfilter sends packets straight to pods.
        backends: the pods that would be picked.
        endpoints: how many pods there are, ready or not.
    """

    service: str
    protocol: str
    path: str
    policy: str
    family: str
    outcome: str
    reason: str
    entries: tuple[str, ...]
    listener: str | None
    backends: tuple[str, ...]
    endpoints: int
