"""Events on Services: who is told, how often, and what happens when it is not possible."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from userproxy.model.service import ServicePortName
from userproxy.model.snapshot import Problem
from userproxy.sources.kubernetes.backoff import Backoff
from userproxy.sources.kubernetes.events import AGAIN_SECONDS, BURST, INTERVAL, Recorder, event
from userproxy.sources.kubernetes.failures import AccessError, ForbiddenError
from userproxy.sources.kubernetes.wire import Name
from userproxy.tests.sources.kubernetes.scripted import ScriptedServer, VirtualTime

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFLICT = Problem("default/web:http", "PortConflict", "10.3.240.9:80/TCP belongs to default/other")


class Desk:
    """A recorder and what it writes to."""

    def __init__(self) -> None:
        self.server = ScriptedServer()
        self.time = VirtualTime()
        self.uids = {Name("default", "web"): "uid-1"}
        self.recorder = Recorder(
            self.server.post, "host1", self.uids.get, Backoff(lambda: 1.0), self.time.times
        )

    async def tell(self, problems: Sequence[Problem]) -> list[str]:
        """Tell, let it write, and return the notes of all Events so far."""
        self.recorder.tell(problems)
        task = asyncio.ensure_future(self.recorder.run())
        for _ in range(200):
            await asyncio.sleep(0)
        task.cancel()
        return [body["note"] for _, body in self.server.posted]


async def test_a_problem_of_a_service_is_told_once() -> None:
    desk = Desk()
    assert await desk.tell([CONFLICT]) == [CONFLICT.message]
    assert await desk.tell([CONFLICT]) == [CONFLICT.message]
    path, body = desk.server.posted[0]
    assert path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert (body["reason"], body["type"], body["reportingInstance"]) == ("PortConflict", "Warning", "host1")
    assert body["regarding"] == {
        "apiVersion": "v1",
        "kind": "Service",
        "namespace": "default",
        "name": "web",
        "uid": "uid-1",
    }


async def test_it_is_told_again_when_the_api_server_has_forgotten() -> None:
    desk = Desk()
    await desk.tell([CONFLICT])
    desk.time.now += AGAIN_SECONDS
    assert len(await desk.tell([CONFLICT])) == 2


async def test_what_concerns_no_author_of_a_service_is_not_told() -> None:
    desk = Desk()
    others = [
        Problem("/etc/services.yaml", "BadManifest", "is not YAML"),
        Problem("https://api", "ApiServerUnavailable", "cannot be reached"),
        Problem("default/unknown", "PortConflict", "no such Service"),
    ]
    assert await desk.tell(others) == []


async def test_all_nodes_write_the_same_event() -> None:
    web = ServicePortName("default", "web", "http")
    names = {event(CONFLICT, web, "uid-1", node)["metadata"]["name"] for node in ("host1", "host2")}
    assert len(names) == 1
    assert event(CONFLICT, web, "uid-2", "host1")["metadata"]["name"] not in names


async def test_many_problems_are_told_at_a_rate() -> None:
    desk = Desk()
    problems = [Problem("default/web", "PortConflict", f"conflict {number}") for number in range(BURST + 3)]
    assert len(await desk.tell(problems)) == BURST + 3
    assert desk.time.pauses == [pytest.approx(INTERVAL, abs=0.01)] * 3


async def test_what_rbac_forbids_is_said_once() -> None:
    desk = Desk()
    desk.server.refusal = ForbiddenError("events is forbidden")
    with structlog.testing.capture_logs() as logs:
        await desk.tell([CONFLICT])
        await desk.tell([CONFLICT, Problem("default/web", "PortConflict", "another")])
    assert [line["error"] for line in logs] == ["events is forbidden"]


async def test_while_the_server_is_away_it_waits() -> None:
    desk = Desk()
    desk.server.refusal = AccessError("refused", unreachable=True)
    assert await desk.tell([CONFLICT]) == []
    assert desk.time.pauses
    desk.server.refusal = None
    assert await desk.tell([CONFLICT]) == [CONFLICT.message]


async def test_a_problem_that_is_over_before_it_was_written_is_not_written() -> None:
    desk = Desk()
    desk.recorder.tell([CONFLICT])
    assert await desk.tell([]) == []


def test_a_note_fits_the_api() -> None:
    long = Problem("default/web", "PortConflict", "ä" * 1000)
    note = event(long, ServicePortName("default", "web"), "uid", "host1")["note"]
    assert note == "ä" * 512
