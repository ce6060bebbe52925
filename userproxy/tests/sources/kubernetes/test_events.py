"""Events on Services: who is told, how often, and what happens when it is not possible."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from userproxy.model.service import ServicePortName
from userproxy.model.snapshot import Notice, Problem
from userproxy.sources.kubernetes.backoff import Backoff
from userproxy.sources.kubernetes.events import (
    AGAIN_SECONDS,
    APART_SECONDS,
    BURST,
    INTERVAL,
    SERIES_SECONDS,
    Recorder,
    event,
    notice_event,
)
from userproxy.sources.kubernetes.failures import AccessError, ForbiddenError
from userproxy.sources.kubernetes.wire import Name
from userproxy.tests.sources.kubernetes.scripted import ScriptedServer, VirtualTime

if TYPE_CHECKING:
    from collections.abc import Sequence

NEED = Notice("default/web:http", "NeedPods", "clients wait")
CONFLICT = Problem("default/web:http", "PortConflict", "10.3.240.9:80/TCP belongs to default/other")


class Desk:
    """A recorder and what it writes to."""

    def __init__(self) -> None:
        self.server = ScriptedServer()
        self.time = VirtualTime()
        self.uids = {Name("default", "web"): "uid-1"}
        self.recorder = Recorder(self.server, "host1", self.uids.get, Backoff(lambda: 1.0), self.time.times)

    async def tell(self, problems: Sequence[Problem]) -> list[str]:
        """Tell, let it write, and return the notes of all Events so far."""
        self.recorder.tell(problems)
        await self.write()
        return [body["note"] for _, body in self.server.posted]

    async def announce(self, *, after: float = 0.0) -> tuple[int, list[int]]:
        """Tell that clients wait, after so long; returns how many Events there are, and their counts."""
        self.time.now += after
        self.recorder.announce(NEED)
        await self.write()
        return len(self.server.posted), [body["series"]["count"] for _, body in self.server.patched]

    async def write(self) -> None:
        """Let it write what there is to write."""
        task = asyncio.ensure_future(self.recorder.run())
        for _ in range(200):
            await asyncio.sleep(0)
        task.cancel()


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


async def test_what_happens_again_is_counted_in_the_event_that_is_there() -> None:
    desk = Desk()
    assert await desk.announce() == (1, [])
    assert await desk.announce(after=APART_SECONDS - 1) == (1, [])  # a moment ago
    assert await desk.announce(after=1) == (1, [2])
    assert await desk.announce(after=SERIES_SECONDS - 1) == (1, [2, 3])
    assert await desk.announce(after=SERIES_SECONDS) == (2, [2, 3])
    path, body = desk.server.posted[0]
    assert (body["type"], body["reason"], body["regarding"]["uid"]) == ("Normal", "NeedPods", "uid-1")
    assert desk.server.patched[0][0] == f"{path}/{body['metadata']['name']}"
    assert desk.server.patched[0][1]["series"]["lastObservedTime"].endswith("Z")


async def test_each_node_tells_by_an_event_of_its_own_each_time() -> None:
    web = ServicePortName("default", "web", "http")
    bodies = [notice_event(NEED, web, "uid-1", node) for node in ("host1", "host2", "host1")]
    assert len({body["metadata"]["name"] for body in bodies}) == 3


async def test_an_event_that_somebody_has_deleted_is_written_anew() -> None:
    desk = Desk()
    await desk.announce()
    desk.server.patch_refusal = AccessError("answered 404: not found")
    assert await desk.announce(after=APART_SECONDS) == (2, [])


async def test_notices_go_before_problems() -> None:
    desk = Desk()
    desk.recorder.announce(NEED)
    assert await desk.tell([CONFLICT]) == [NEED.message, CONFLICT.message]


async def test_a_notice_that_nobody_could_be_told_of_in_time_is_not_told() -> None:
    desk = Desk()
    desk.recorder.announce(NEED)
    desk.time.now += 60.0
    assert await desk.tell([]) == []
