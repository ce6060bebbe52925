"""The source as a whole, against servers that answer by a script."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from userproxy.lab.objects import node
from userproxy.model.snapshot import Node, Problem, Snapshot
from userproxy.sources import status_of
from userproxy.sources.decode import Scope
from userproxy.sources.kubernetes.failures import AccessError
from userproxy.sources.kubernetes.source import KubernetesSource
from userproxy.tests.sources.kubernetes.scripted import (
    Answer,
    ScriptedServer,
    StaysOpen,
    VirtualTime,
    event,
    page,
)
from userproxy.tests.sources.objects import endpoint_slice, service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPEN = StaysOpen()
NO_NODE: list[Answer] = [page(1), [OPEN]]


class Run:
    """One run of a source.

    Attributes:
        servers: of Services, EndpointSlices, Nodes and Events.
        snapshots: what was published.
        source: that runs.
    """

    def __init__(
        self,
        services: list[Answer],
        slices: list[Answer],
        nodes: list[Answer],
        proxy_name: str | None = None,
    ) -> None:
        self.servers = [ScriptedServer(*script) for script in (services, slices, nodes, [])]
        self.snapshots: list[Snapshot] = []
        connections = iter(self.servers)

        def connect(_kubeconfig: Path | None) -> ScriptedServer:
            return next(connections)

        self.source = KubernetesSource(
            None,
            node_name="host1",
            scope=Scope(proxy_name),
            connect=connect,
            times=VirtualTime().times,
        )

    async def play(self, then: Callable[[], object] = lambda: None) -> Snapshot | None:
        """Let everything happen that the scripts have, and `then`; returns what was published last."""
        task = asyncio.ensure_future(self.source.run(self.snapshots.append))
        for step in (then, lambda: None):
            for _ in range(100):
                await asyncio.sleep(0)
            step()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return self.snapshots[-1] if self.snapshots else None


def versioned(obj: dict[str, Any], version: int = 1) -> dict[str, Any]:
    """An object as the API server has it."""
    return obj | {"metadata": obj["metadata"] | {"resourceVersion": str(version), "uid": "uid-1"}}


SERVICE, SLICE = versioned(service()), versioned(endpoint_slice())
NODE = versioned(node("host1", "zone-a"), 3)


async def test_everything_is_published_together() -> None:
    run = Run([page(1, SERVICE), [OPEN]], [page(1, SLICE), [OPEN]], [page(1, NODE), [OPEN]])
    staleness: list[float] = []
    snapshot = await run.play(lambda: staleness.append(run.source.stale_seconds()))
    assert snapshot is not None
    assert [str(name) for name in snapshot.services] == ["default/server-service:http"]
    assert [len(found) for found in snapshot.endpoints.values()] == [2]
    assert snapshot.node == Node("host1", "zone-a")
    assert (len(run.snapshots), run.source.synced, staleness) == (1, True, [0.0])


@pytest.mark.parametrize("late", [0, 1, 2])
async def test_nothing_is_published_before_all_kinds_are_there(late: int) -> None:
    scripts: list[list[Answer]] = [[page(1, SERVICE), [OPEN]], [page(1, SLICE), [OPEN]], NO_NODE]
    scripts[late] = [AccessError("forbidden")] * 500
    run = Run(scripts[0], scripts[1], scripts[2])
    assert await run.play() is None
    assert not run.source.synced


async def test_a_node_that_does_not_exist_is_not_eligible() -> None:
    snapshot = await Run([page(1), [OPEN]], [page(1), [OPEN]], NO_NODE).play()
    assert snapshot is not None
    assert snapshot.node == Node("host1", "", eligible=False)


async def test_the_selectors_are_those_of_kube_proxy() -> None:
    run = Run([page(1), [OPEN]], [page(1), [OPEN]], NO_NODE)
    await run.play()
    services, slices, nodes = (server.asked[0] for server in run.servers[:3])
    theirs = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
    assert (services["labelSelector"], slices["labelSelector"]) == (theirs, theirs)
    assert nodes["fieldSelector"] == "metadata.name=host1"


async def test_with_a_name_only_what_is_labelled_with_it_is_asked_for() -> None:
    run = Run([page(1), [OPEN]], [page(1), [OPEN]], NO_NODE, proxy_name="mine")
    await run.play()
    ours = "!service.kubernetes.io/headless,service.kubernetes.io/service-proxy-name=mine"
    assert [server.asked[0]["labelSelector"] for server in run.servers[:2]] == [ours, ours]


async def test_a_service_that_comes_back_has_its_endpoints_at_once() -> None:
    deleted, added = event("DELETED", SERVICE), event("ADDED", versioned(service(), 5))
    run = Run([page(1, SERVICE), [deleted, added, OPEN]], [page(1, SLICE), [OPEN]], NO_NODE)
    snapshot = await run.play()
    assert snapshot is not None
    assert set(snapshot.services) == set(snapshot.endpoints)


async def test_an_object_that_cannot_be_served_keeps_its_last_good_state() -> None:
    bad = event("MODIFIED", versioned(service(ports=[{"port": 0}]), 9))
    run = Run([page(1, SERVICE), [bad, OPEN]], [page(1), [OPEN]], NO_NODE)
    with structlog.testing.capture_logs():
        snapshot = await run.play()
    assert snapshot is not None
    assert [str(name) for name in snapshot.services] == ["default/server-service:http"]
    (problem,) = snapshot.problems
    assert (problem.about, problem.reason) == ("default/server-service", "BadObject")
    assert "spec.ports[0].port" in problem.message


async def test_the_same_trouble_of_all_reflectors_is_one_line_and_one_problem() -> None:
    lost: list[Answer] = [AccessError("cannot be reached", unreachable=True)] * 500
    hung_up = AccessError("has hung up", unreachable=True)
    run = Run([page(1, SERVICE), [hung_up], *lost], [page(1), [hung_up], *lost], [page(1), [hung_up], *lost])
    with structlog.testing.capture_logs() as logs:
        snapshot = await run.play()
    troubles = [line["error"] for line in logs if line["log_level"] == "error"]
    assert troubles == ["has hung up", "cannot be reached"]
    assert snapshot is not None
    assert snapshot.problems == (), "it is the source's, and no change of what is wanted"
    assert status_of(run.source).problem == "kubernetes: cannot be reached"
    assert len(snapshot.services) == 1
    assert run.source.stale_seconds() > 0


async def test_why_it_cannot_be_followed_is_known_before_anything_is() -> None:
    lost: list[Answer] = [AccessError("cannot be reached", unreachable=True)] * 500
    run = Run(lost, [page(1), [OPEN]], NO_NODE)
    with structlog.testing.capture_logs():
        assert await run.play() is None
    assert status_of(run.source).problem == "kubernetes: cannot be reached"


async def test_in_touch_there_is_no_problem() -> None:
    run = Run([AccessError("refused"), page(1, SERVICE), [OPEN]], [page(1), [OPEN]], NO_NODE)
    told: list[str] = []
    with structlog.testing.capture_logs():
        await run.play(lambda: told.append(status_of(run.source).problem))
    assert told == [""]


async def test_the_authors_are_told_of_problems() -> None:
    run = Run([page(1, SERVICE), [OPEN]], [page(1), [OPEN]], NO_NODE)
    problem = Problem("default/server-service:http", "PortConflict", "belongs to another")
    await run.play(lambda: run.source.tell([problem]))
    ((path, body),) = run.servers[3].posted
    assert path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert body["note"] == "belongs to another"
