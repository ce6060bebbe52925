"""Whatever comes over the wire, the source goes on, and what it knew stays until it knows better."""

from __future__ import annotations

import asyncio
import copy
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from userproxy.model.snapshot import Node, Snapshot
from userproxy.sources.kubernetes import stores
from userproxy.sources.kubernetes.failures import GoneError
from userproxy.sources.kubernetes.source import KubernetesSource
from userproxy.sources.services import decode_service
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
    from collections.abc import Mapping, Sequence

    from userproxy.sources import api
    from userproxy.sources.decode import Scope, ServiceObject

ONE, TWO = "default/server-service:http", "default/other:http"


def versioned(obj: dict[str, Any], version: int) -> dict[str, Any]:
    return obj | {"metadata": obj["metadata"] | {"resourceVersion": str(version), "uid": "u"}}


SERVICE = versioned(service(), 3)
OTHER = versioned(service("other", clusterIP="10.3.241.153"), 4)
SLICE = versioned(endpoint_slice(), 3)
NODE: dict[str, Any] = {"kind": "Node", "metadata": {"name": "host1", "resourceVersion": "3"}}
Chunks = list[bytes | Exception | float]


def nodes() -> ScriptedServer:
    """The server of a Node that nothing is wrong with."""
    return ScriptedServer(page(1, NODE), [StaysOpen()])


class Unreliable(ScriptedServer):
    """Answers a list with what it is given, then with the truth; a watch likewise, then with silence."""

    def __init__(self, truth: bytes, lists: Sequence[bytes], watches: Sequence[Chunks] = ()) -> None:
        super().__init__()
        self._truth = truth
        self._lists = list(lists)
        self._watches = list(watches)
        self._told = False

    def _next(self, path: str, query: Mapping[str, str]) -> Answer:
        self.asked.append({"path": path, **query})
        if "watch" not in query:
            self._told = not self._lists
            return self._lists.pop(0) if self._lists else self._truth
        if self._watches:
            self._told = False
            return self._watches.pop(0)
        if not self._told:
            raise GoneError("too old")
        return [StaysOpen()]


class Story:
    """A source, with a server for Services, EndpointSlices and Nodes each, for as long as something happens.

    Attributes:
        snapshots: what was published.
        lines: the log.
        source: that went through it.
    """

    def __init__(self, *servers: ScriptedServer) -> None:
        unused = iter((*servers, ScriptedServer()))
        self.snapshots: list[Snapshot] = []
        self.source = KubernetesSource(
            None, node_name="host1", connect=lambda _: next(unused), times=VirtualTime().times
        )
        with structlog.testing.capture_logs() as self.lines:
            asyncio.run(self._play())

    async def _play(self) -> None:
        task = asyncio.ensure_future(self.source.run(self.snapshots.append))
        for _ in range(200):
            await asyncio.sleep(0)
        assert not task.done(), "the source has ended by itself"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @property
    def served(self) -> set[str]:
        """The Service ports of the last Snapshot."""
        return {str(name) for name in self.snapshots[-1].services}

    @property
    def errors(self) -> list[str]:
        """What was logged as wrong, but for the server's having forgotten."""
        errors = [line["error"] for line in self.lines if line["log_level"] == "error"]
        return [error for error in errors if "is gone" not in error]


ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, 1.5, math.inf, math.nan),
    *("", "a", "A b\n", "\x00\x1b[31m", "é" * 300, "10.0.0.1", "0.0.0.0/0", "2026-11-27T00:00:00Z"),
    *([], [None], [[]], {}, {"": None}, {"name": 7}, {"metadata": {}}, json.loads("[" * 500 + "]" * 500)),
)
"""Values that hardly any field is of."""


def replaced(draw: st.DrawFn, obj: Any) -> Any:  # noqa: ANN401 - any JSON
    """An object in which one value, somewhere, is another."""
    whole = {"": copy.deepcopy(obj)}
    place: Any = whole
    key: Any = ""
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 4)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw(st.sampled_from(ODD))
    return whole[""]


def as_bytes(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    return json.dumps(value, allow_nan=True).encode()


@st.composite
def bodies(draw: st.DrawFn, item: dict[str, Any]) -> bytes:
    """What may answer instead of a list: noise, one that was damaged, one with an object of another shape."""
    whole = json.loads(page(9, item))
    body = as_bytes(draw(st.sampled_from([whole, replaced(draw, whole), page_of(replaced(draw, item))])))
    return draw(st.sampled_from([body, damaged(draw, body), draw(st.binary(max_size=40))]))


@st.composite
def watches(draw: st.DrawFn, item: dict[str, Any]) -> Chunks:
    """What may come of a watch, in chunks of any size."""
    kinds = st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "WHATEVER"])
    text = b""
    for _ in range(draw(st.integers(0, 3))):
        whole = json.loads(event(draw(kinds), draw(st.sampled_from([item, replaced(draw, item)]))))
        line = as_bytes(draw(st.sampled_from([whole, replaced(draw, whole)])))
        text += draw(st.sampled_from([line, damaged(draw, line), draw(st.binary(max_size=40))])) + b"\n"
    cut = draw(st.integers(0, len(text)))
    return [text[:cut], text[cut:]]


def is_whole(body: bytes) -> bool:
    """Whether it is not a page that goes on: what that holds is of the list which the truth completes."""
    try:
        metadata = json.loads(body)["metadata"]
    except (ValueError, TypeError, KeyError):
        return True
    return not (isinstance(metadata, dict) and metadata.get("continue"))


def page_of(item: Any) -> Any:  # noqa: ANN401 - any JSON
    return {"metadata": {"resourceVersion": "9"}, "items": [item]}


def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 3)) :]


def servers(item: dict[str, Any]) -> st.SearchStrategy[Unreliable]:
    """It begins with a good list of this one object, and in the end has a new version of it."""
    first, truth = page(1, item), page(99, versioned(item, 99))
    return st.builds(
        lambda lists, watches: Unreliable(truth, [first, *lists], watches),
        st.lists(bodies(item).filter(is_whole), max_size=2),
        st.lists(watches(item), max_size=2),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(servers(SERVICE), servers(SLICE), servers(NODE))
def test_nothing_ends_the_source(services: Unreliable, slices: Unreliable, node: Unreliable) -> None:
    story = Story(services, slices, node)
    assert story.source.synced
    assert story.served == {ONE}
    assert [len(found) for found in story.snapshots[-1].endpoints.values()] == [2]
    assert story.snapshots[-1].node == Node("host1")
    assert all(len(error) < 1000 and error.isprintable() for error in story.errors)
    assert {problem.reason for problem in story.snapshots[-1].problems} == set()


@pytest.mark.parametrize(
    "bad",
    [
        {"spec": SERVICE["spec"] | {"ports": "many"}},
        {"spec": SERVICE["spec"] | {"ports": [{"port": 10**30}]}},
        {"spec": []},
        {"metadata": SERVICE["metadata"] | {"labels": 7, "resourceVersion": "5"}},
        {"metadata": SERVICE["metadata"] | {"annotations": "none", "uid": 5}},
        {"metadata": SERVICE["metadata"] | {"resourceVersion": 5}},
    ],
)
def test_an_object_of_another_shape_costs_nothing_but_itself(bad: dict[str, Any]) -> None:
    bad = versioned(SERVICE, 5) | bad
    truth = page(9, bad, OTHER)
    story = Story(Unreliable(truth, [page(1, SERVICE)]), Unreliable(page(1, SLICE), []), nodes())
    assert story.served == {ONE, TWO}, "its last good state stays"
    (problem,) = story.snapshots[-1].problems
    assert (problem.about, problem.reason) == ("default/server-service", "BadObject")
    assert len(story.errors) == 1


def test_a_fault_of_ours_costs_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(found: api.Service, scope: Scope) -> ServiceObject:
        if found.metadata and found.metadata.name == "server-service":
            raise OverflowError("too much for us")
        return decode_service(found, scope)

    monkeypatch.setattr(stores, "decode_service", fail)
    story = Story(Unreliable(page(9, SERVICE, OTHER), []), Unreliable(page(1, SLICE), []), nodes())
    assert story.served == {TWO}
    (problem,) = story.snapshots[-1].problems
    assert "OverflowError: too much for us" in problem.message


def test_an_object_without_a_name_is_a_problem_until_the_list_has_none() -> None:
    nameless = {"metadata": {"namespace": "default"}, "spec": SERVICE["spec"]}
    lists = [page(1, SERVICE), page(8, nameless, OTHER)]
    services = Unreliable(page(9, nameless, OTHER), lists, [[], []])
    story = Story(services, Unreliable(page(1), []), nodes())
    assert story.served == {ONE, TWO}
    assert len([error for error in story.errors if "left out" in error]) == 1, "said once"
    (problem,) = story.snapshots[-1].problems
    assert problem.reason == "UnreadableObject"
    assert "services from https://api" in problem.message
    assert "metadata.name: is missing" in problem.message


def test_our_node_of_another_shape_keeps_its_last_good_state() -> None:
    bad = versioned(NODE, 5) | {"spec": {"taints": "none"}}
    known = Unreliable(page(9, bad), [page(1, NODE)])
    story = Story(Unreliable(page(1, SERVICE), []), Unreliable(page(1), []), known)
    assert story.snapshots[-1].node == Node("host1")
    (problem,) = story.snapshots[-1].problems
    assert (problem.about, problem.reason) == ("Node host1 from the API", "UnreadableObject")
    assert "spec.taints" in problem.message


@pytest.mark.parametrize("kind", ["list", "watch"])
def test_what_is_not_understood_is_one_line_that_names_server_and_resource(kind: str) -> None:
    html = b"<html><body>Log in</body></html>\n"
    lists = [page(1, SERVICE)] + [html] * (kind == "list")
    watches: list[Chunks] = [[html]] * (kind == "watch")
    story = Story(Unreliable(page(9, SERVICE), lists, watches), Unreliable(page(1), []), nodes())
    (error,) = story.errors
    assert error.startswith(f"the {kind} of services from https://api is not understood: ")
    assert "<html><body>Log in</body>" in error
    assert story.served == {ONE}
