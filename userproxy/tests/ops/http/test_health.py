"""What load balancers and kubelets are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from userproxy.model.rows import SourceStatus
from userproxy.ops.http.health import Health

SOURCE = SourceStatus(kind="kubernetes", synced=True, stale_seconds=3.5)


def health(**changes: Any) -> Health:  # noqa: ANN401 - any field
    fields = {
        "now": 1e9,
        "last_updated": 1e9 - 5,
        "pending_seconds": None,
        "eligible": True,
        "source": SOURCE,
    }
    return Health(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "alive", "healthy", "ready"),
    [
        ({}, True, True, True),
        ({"pending_seconds": 59.9}, True, True, True),
        ({"pending_seconds": 60.0}, False, False, False),
        ({"eligible": False}, True, False, True),
        ({"last_updated": None}, True, False, False),
        ({"last_updated": 0.0}, True, True, True),
    ],
)
def test_a_change_that_hangs_or_a_node_that_goes(
    changes: dict[str, Any], alive: bool, healthy: bool, ready: bool
) -> None:
    judged = health(**changes)
    assert (judged.alive, judged.healthy, judged.ready) == (alive, healthy, ready)


def test_the_body_has_the_fields_of_kube_proxy_and_the_source() -> None:
    assert json.loads(health().body(healthy=True)) == {
        "lastUpdated": "2001-09-09T01:46:35.000Z",
        "currentTime": "2001-09-09T01:46:40.000Z",
        "nodeEligible": True,
        "healthy": True,
        "status": {"IPv4": {"lastUpdated": "2001-09-09T01:46:35.000Z", "healthy": True}},
        "source": {"kind": "kubernetes", "synced": True, "stale_seconds": 3.5, "problem": ""},
    }
