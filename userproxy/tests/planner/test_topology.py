"""Which endpoints take traffic: a table of kube-proxy's rules, a row each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import Protocol, ServicePort, ServicePortName, TrafficPolicy
from userproxy.model.snapshot import Node
from userproxy.model.state import Backend
from userproxy.planner.topology import select
from userproxy.tests.services import cluster_ips

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Node("here", "zone-a")
CLUSTER, LOCAL = TrafficPolicy.CLUSTER, TrafficPolicy.LOCAL
READY: Mapping[str, bool] = {}
PUBLISHED = {"terminating": True}
SERVING = {"ready": False}
TERMINATING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}
NOT_READY = {"ready": False, "serving": False}


def service(internal: TrafficPolicy = CLUSTER) -> ServicePort:
    return ServicePort(
        name=ServicePortName("default", "web"),
        protocol=Protocol.TCP,
        entries=cluster_ips(Address("10.3.0.1", 80)),
        internal_traffic_policy=internal,
    )


def endpoint(
    number: int, node: str = "there", *, hints: str = "", state: Mapping[str, bool] = READY
) -> Endpoint:
    """An endpoint; `hints` names the zones and nodes, as in `zone-a node:here`."""
    words = hints.split()
    return Endpoint(
        address=Address(f"10.0.0.{number}", 8080),
        node=node,
        zone="zone-a" if node == "here" else "zone-b",
        hint_zones=tuple(word for word in words if not word.startswith("node:")),
        hint_nodes=tuple(word.removeprefix("node:") for word in words if word.startswith("node:")),
        **state,
    )


def chosen(*endpoints: Endpoint, policy: TrafficPolicy = CLUSTER, node: Node = HERE) -> str:
    """The last bytes of the backends' addresses, or what becomes of the traffic without any."""
    choice = select(service(policy), endpoints, node)
    if choice.backends:
        assert not choice.drop
        return " ".join(backend.address.ip.rpartition(".")[2] for backend in choice.backends)
    return "drop" if choice.drop else "refuse"


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param([], "refuse", id="no-endpoints-refuse"),
        pytest.param([endpoint(1, "here"), endpoint(2)], "1 2", id="all-ready-wherever-they-are"),
        pytest.param([endpoint(1), endpoint(2, state=NOT_READY)], "1", id="only-ready-ones"),
        pytest.param([endpoint(1), endpoint(2, state=TERMINATING)], "1", id="terminating-as-a-last-resort"),
        pytest.param(
            [endpoint(1, state=TERMINATING), endpoint(2, state=NOT_READY)],
            "1",
            id="terminating-if-none-is-ready",
        ),
        pytest.param([endpoint(1, state=GONE)], "refuse", id="terminating-that-no-longer-serves"),
        pytest.param([endpoint(1, state=SERVING)], "refuse", id="serving-but-neither-ready-nor-terminating"),
        pytest.param([endpoint(1, state=PUBLISHED)], "1", id="published-though-not-ready"),
    ],
)
def test_cluster_policy_takes_what_is_usable(endpoints: list[Endpoint], expected: str) -> None:
    assert chosen(*endpoints) == expected


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param([], "refuse", id="none-anywhere-refuse"),
        pytest.param([endpoint(1, "here"), endpoint(2)], "1", id="those-of-this-node"),
        pytest.param([endpoint(2)], "drop", id="none-here-but-some-elsewhere-drop"),
        pytest.param([endpoint(2, state=TERMINATING)], "drop", id="elsewhere-only-terminating-drop"),
        pytest.param([endpoint(2, state=NOT_READY)], "refuse", id="elsewhere-none-usable-refuse"),
        pytest.param([endpoint(1, "here", state=NOT_READY)], "refuse", id="not-ready-here-refuse"),
        pytest.param([endpoint(1, "here", state=NOT_READY), endpoint(2)], "drop", id="here-not-ready-drop"),
        pytest.param(
            [endpoint(1, "here", state=TERMINATING), endpoint(2)],
            "1",
            id="terminating-here-before-ready-there",
        ),
        pytest.param(
            [endpoint(1, "here", state=TERMINATING), endpoint(2, "here")],
            "2",
            id="ready-before-terminating",
        ),
        pytest.param([endpoint(1, "")], "drop", id="endpoint-of-no-node-is-not-local"),
        pytest.param(
            [endpoint(1, "here", hints="zone-b"), endpoint(2, "here", hints="zone-a")],
            "1 2",
            id="hints-do-not-apply",
        ),
    ],
)
def test_local_policy_stays_on_the_node(endpoints: list[Endpoint], expected: str) -> None:
    assert chosen(*endpoints, policy=LOCAL) == expected


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param([endpoint(1, hints="zone-a"), endpoint(2, hints="zone-b")], "1", id="our-zone"),
        pytest.param([endpoint(1, hints="zone-a zone-b"), endpoint(2, hints="zone-b")], "1", id="two-zones"),
        pytest.param([endpoint(1, hints="zone-a"), endpoint(2)], "1 2", id="one-without-hints-all-count"),
        pytest.param(
            [endpoint(1, hints="zone-b"), endpoint(2, hints="zone-c")], "1 2", id="none-for-us-all-count"
        ),
        pytest.param(
            [endpoint(1, hints="zone-a"), endpoint(2, hints="zone-b"), endpoint(3, state=NOT_READY)],
            "1",
            id="hints-of-endpoints-that-are-not-ready-do-not-matter",
        ),
        pytest.param(
            [endpoint(1, hints="zone-b"), endpoint(2, hints="zone-a", state=NOT_READY)],
            "1",
            id="a-hint-to-an-endpoint-that-is-not-ready-is-none-for-us",
        ),
        pytest.param(
            [endpoint(1, hints="zone-a", state=TERMINATING), endpoint(2, hints="zone-b", state=TERMINATING)],
            "1 2",
            id="terminating-ones-regardless-of-hints",
        ),
        pytest.param(
            [endpoint(1, hints="zone-a node:here"), endpoint(2, hints="zone-a node:there")],
            "1",
            id="node-before-zone",
        ),
        pytest.param(
            [endpoint(1, hints="zone-a node:x"), endpoint(2, hints="zone-b node:y")],
            "1",
            id="zone-if-no-node-hint-is-for-us",
        ),
        pytest.param(
            [endpoint(1, hints="zone-a node:here"), endpoint(2, hints="zone-a"), endpoint(3, hints="zone-b")],
            "1 2",
            id="zone-if-one-has-no-node-hint",
        ),
    ],
)
def test_hints_narrow_only_as_a_whole(endpoints: list[Endpoint], expected: str) -> None:
    assert chosen(*endpoints) == expected


def test_a_node_of_unknown_zone_uses_all() -> None:
    endpoints = [endpoint(1, hints="zone-a"), endpoint(2, hints="zone-b")]
    assert chosen(*endpoints, node=Node("here")) == "1 2"


def test_a_node_of_unknown_name_has_no_local_endpoints() -> None:
    assert chosen(endpoint(1, ""), policy=LOCAL, node=Node("")) == "drop"


def test_external_traffic_may_have_another_policy() -> None:
    endpoints = [endpoint(1, "here"), endpoint(2)]
    assert len(select(service(CLUSTER), endpoints, HERE, LOCAL).backends) == 1
    assert len(select(service(LOCAL), endpoints, HERE, CLUSTER).backends) == 2


def test_a_backend_knows_its_node_and_zone() -> None:
    (backend,) = select(service(), [endpoint(1, "here")], HERE).backends
    assert backend == Backend(Address("10.0.0.1", 8080), "here", "zone-a")


def far(*endpoints: Endpoint, policy: TrafficPolicy = CLUSTER) -> list[str]:
    return [str(backend.address) for backend in select(service(policy), endpoints, HERE).far]


def test_what_hints_pass_over_may_take_over() -> None:
    near, other = endpoint(1, hints="zone-a"), endpoint(2, hints="zone-b")
    assert chosen(near, other) == "1"
    assert far(near, other, endpoint(3, hints="zone-b", state=NOT_READY)) == ["10.0.0.2:8080"]


def test_what_a_policy_forbids_may_not() -> None:
    assert far(endpoint(1, "here"), endpoint(2), policy=LOCAL) == []
