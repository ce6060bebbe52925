"""Who asks at which entry of a Service, and what comes of it: for the pure rules, and for real packets.

The Service has an entry of each kind. Its policies, internal and external, are both `Cluster` or both
`Local`; its endpoints are none, a pod on another node, one on this node, or both. Every combination is in
exactly one row, which holds for TCP and UDP, and in IPv4 and IPv6.

Source: KEP-1669, KEP-2086, and `pkg/proxy/nftables` of kube-proxy, which answers alike but for cluster IPs
from outside.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

POLICIES = ("Cluster", "Local")
PODS_OF = {"none": (), "elsewhere": ("elsewhere",), "here": ("here",), "both": ("here", "elsewhere")}
ASKERS = ("pod", "host", "outside")
ENTRIES = ("cluster IP", "node port", "external IP", "load balancer IP")

_SOME = ("elsewhere", "here", "both")
_HERE = ("here", "both")
_PUBLIC = ENTRIES[1:]
_INSIDE = ("pod", "host")


class Asked(NamedTuple):
    """One combination; the fields are of `POLICIES`, `PODS_OF`, `ASKERS` and `ENTRIES`."""

    policy: str
    endpoints: str
    asker: str
    entry: str


class Outcome(NamedTuple):
    """What comes of it.

    Attributes:
        pods: that answer in turn; none: nobody does.
        refused: whether the client is told so at once; otherwise it waits in vain.
        as_node: whether a pod that the packets are redirected to sees the node's address, not the client's.
        why: it has to be so.
    """

    pods: frozenset[str]
    refused: bool
    as_node: bool
    why: str


class _Row(NamedTuple):
    policies: tuple[str, ...]
    endpoints: tuple[str, ...]
    askers: tuple[str, ...]
    entries: tuple[str, ...]
    answer: str
    why: str

    def covers(self, asked: Asked) -> bool:
        return all(value in values for value, values in zip(asked, self, strict=False))


ROWS = (
    _Row(POLICIES, ("none",), ASKERS, ENTRIES, "refused", "there is nobody: the client need not wait"),
    _Row(POLICIES, _SOME, ("outside",), ENTRIES[:1], "refused", "cluster IPs are closed to the outside"),
    _Row(("Cluster",), _SOME, _INSIDE, ENTRIES[:1], "any", "the internal policy admits every pod"),
    _Row(("Local",), _HERE, _INSIDE, ENTRIES[:1], "here", "the internal policy admits pods of this node"),
    _Row(("Local",), ("elsewhere",), _INSIDE, ENTRIES[:1], "dropped", "there are pods, and none is admitted"),
    _Row(POLICIES, _SOME, _INSIDE, _PUBLIC, "any", "the external policy is not for pods nor for the node"),
    _Row(
        ("Cluster",), _SOME, ("outside",), _PUBLIC, "any, as node", "the answer must come back by this node"
    ),
    _Row(("Local",), _HERE, ("outside",), _PUBLIC, "here", "and the pod sees the client, by this policy"),
    _Row(
        ("Local",), ("elsewhere",), ("outside",), _PUBLIC, "dropped", "another node has the pods, and answers"
    ),
)


def combinations() -> list[Asked]:
    """All of them."""
    return list(itertools.starmap(Asked, itertools.product(POLICIES, PODS_OF, ASKERS, ENTRIES)))


def outcome_of(asked: Asked) -> Outcome:
    """What the table says of it.

    Raises:
        ValueError: not one row does.
    """
    (row,) = [row for row in ROWS if row.covers(asked)]
    there = frozenset(PODS_OF[asked.endpoints])
    pods = {"any": there, "any, as node": there, "here": there & {"here"}}.get(row.answer, frozenset())
    return Outcome(pods, row.answer == "refused", row.answer.endswith("as node"), row.why)
