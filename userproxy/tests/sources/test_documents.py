"""A manifest file is taken whole or refused with file position, object and field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from userproxy.sources import documents
from userproxy.sources.documents import ManifestError, decode_manifest
from userproxy.tests.sources.objects import endpoint_slice, service

if TYPE_CHECKING:
    from userproxy.sources.decode import DecodedObject

SERVICE = "Service default/server-service"
SLICE = "EndpointSlice default/server-service-1"
BOTH = [service(), endpoint_slice()]
FORMATS = pytest.mark.parametrize("is_json", [False, True], ids=["yaml", "json"])


def written(value: object, *, is_json: bool) -> bytes:
    text: str = json.dumps(value) if is_json else yaml.safe_dump(value)
    return text.encode()


def list_of(*items: object, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"apiVersion": "v1", "kind": "List", "items": list(items)} | fields


def keys(objects: tuple[DecodedObject, ...]) -> list[str]:
    return [str(found.key) for found in objects]


def refusal(data: bytes, *, is_json: bool = False) -> ManifestError:
    with pytest.raises(ManifestError) as failure:
        decode_manifest(data, is_json=is_json)
    assert "\n" not in str(failure.value)
    return failure.value


@FORMATS
def test_a_list_as_kubectl_prints_it_is_read(*, is_json: bool) -> None:
    printed = list_of(*BOTH, metadata={"resourceVersion": ""})
    assert keys(decode_manifest(written(printed, is_json=is_json), is_json=is_json).objects) == [
        SERVICE,
        SLICE,
    ]


@FORMATS
def test_the_items_of_a_typed_list_have_the_kind_of_the_list(*, is_json: bool) -> None:
    bare = {field: value for field, value in service().items() if field not in ("kind", "apiVersion")}
    data = written({"apiVersion": "v1", "kind": "ServiceList", "items": [bare]}, is_json=is_json)
    assert keys(decode_manifest(data, is_json=is_json).objects) == [SERVICE]


def test_yaml_and_json_mean_the_same() -> None:
    from_yaml = decode_manifest(written(list_of(*BOTH), is_json=False), is_json=False)
    assert from_yaml == decode_manifest(written(list_of(*BOTH), is_json=True), is_json=True)
    assert from_yaml == decode_manifest(yaml.safe_dump_all([*BOTH, None]).encode(), is_json=False)


def test_the_other_kinds_of_kubernetes_are_skipped() -> None:
    others = [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"a": 1}}}]
    decoded = decode_manifest(written(list_of(*others, *BOTH), is_json=False), is_json=False)
    assert (len(decoded.objects), decoded.problems) == (2, ())


def test_an_endpoints_object_is_skipped_and_reported() -> None:
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "server-service"}}
    (problem,) = decode_manifest(written(endpoints, is_json=False), is_json=False).problems
    assert (problem.about, problem.reason) == ("default/server-service", "EndpointsNotRead")


def test_a_list_without_items_is_an_empty_state() -> None:
    assert decode_manifest(written(list_of(), is_json=False), is_json=False).objects == ()


@FORMATS
@pytest.mark.parametrize(
    ("value", "subject", "field", "error"),
    [
        ({"apiVersion": "v1", "kind": "Servcie"}, "Servcie", "kind", "'Servcie' is not known: Service, End"),
        ({"apiVersion": "v1"}, "", "kind", "is missing"),
        (service() | {"apiVersion": "v2"}, SERVICE, "apiVersion", "'v2': a Service is v1"),
        (endpoint_slice() | {"apiVersion": "v1"}, SLICE, "apiVersion", "is discovery.k8s.io/v1"),
        (service(ports=[{"port": "http"}]), SERVICE, "spec.ports[0].port", "whole number"),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {}}, "Service", "metadata.name", "is missing"),
        (list_of(*BOTH, {"kind": 1}), "items[2]", "kind", "expected a string"),
        (list_of(*BOTH, 7), "items[2]", "", "expected a mapping, got a whole number"),
        (list_of(service(), service()), SERVICE, "", "stands twice in this file"),
        (list_of(list_of()), "items[0]", "kind", "'List' is not known"),
        (["a"], "", "", "expected a mapping, got a list"),
        ("a", "", "", "expected a mapping, got a string"),
    ],
)
def test_one_bad_object_refuses_the_file_and_is_named(
    value: object, subject: str, field: str, error: str, *, is_json: bool
) -> None:
    failure = refusal(written(value, is_json=is_json), is_json=is_json)
    assert (failure.document, failure.subject, failure.field) == (1, subject, field)
    assert error in failure.error


def test_the_document_is_counted_as_the_reader_of_the_file_counts() -> None:
    assert refusal(yaml.safe_dump_all([*BOTH, {"kind": "Nope"}]).encode()).document == 3
    assert refusal(yaml.safe_dump_all(BOTH).encode() + b"---\na: [\n").document == 3


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"a":\n 1', "is not JSON"),
        (b'{"a":\n ?}', "line 2: is not JSON"),
        (b'{"kind": "\xff"}', "is not UTF-8"),
        (b'{"kind": "Pod"}{"kind": "Pod"}', "is not JSON"),
        (b"[" * 200_000, "expected a mapping, got a list"),
        (b'{"kind": "List", "items": [' + b"[" * 200_000, "is nested too deeply"),
        (
            written(service(ports=[{"port": 0}]), is_json=True).replace(b": 0", b": " + b"9" * 5000),
            "out of range",
        ),
    ],
)
def test_json_that_cannot_be_read_is_refused(data: bytes, error: str) -> None:
    assert error in refusal(data, is_json=True).error


@FORMATS
@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_a_file_that_holds_nothing_is_refused(data: bytes, *, is_json: bool) -> None:
    assert "holds no object" in refusal(data, is_json=is_json).error


def test_a_file_of_nothing_but_comments_is_refused() -> None:
    assert "holds no object" in refusal(b"# nothing\n---\n").error


@FORMATS
def test_a_file_larger_than_the_limit_is_refused_unread(
    monkeypatch: pytest.MonkeyPatch, *, is_json: bool
) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 1 << 20)
    assert "is larger than 1 MiB" in refusal(b"[" * ((1 << 20) + 1), is_json=is_json).error
