"""Tests that a proxy is known to fail, and why: something is yet to come, or lies in what it is. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from integration.cluster.e2e.outcome import Result
from integration.cluster.rig.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from integration.cluster.e2e.outcome import Outcome

_RELAYED = (
    "a pod is to see the client's own address. It sees the node's, as behind every relay that ends one "
    "connection and begins another; with redirect to pod it sees the client's"
)
EXCEPTIONS = {
    Proxy.REDIRECT_TO_HOST: {
        "preserve source pod IP|Policy=Local for type=NodePort|HealthCheckNodePort correctly": _RELAYED,
    },
}
"""By proxy: regular expressions for a part of a name, and the reason."""


def reason_of(proxy: Proxy, test: str) -> str:
    """Why this proxy may fail a test; empty if it may not."""
    found = (why for pattern, why in EXCEPTIONS.get(proxy, {}).items() if re.search(pattern, test))
    return next(found, "")


def by_reason(proxy: Proxy, outcomes: Iterable[Outcome]) -> dict[str, list[str]]:
    """The tests that failed, by the reason; by the empty one those that have none."""
    found: dict[str, list[str]] = {}
    for each in outcomes:
        if each.result is Result.FAILED:
            found.setdefault(reason_of(proxy, each.test), []).append(each.test)
    return found


def unexplained(proxy: Proxy, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The failures that have no reason here."""
    return [each for each in outcomes if each.result is Result.FAILED and not reason_of(proxy, each.test)]
