"""The bytes of the API server."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from userproxy.lab import objects
from userproxy.model.snapshot import Node
from userproxy.sources.api import DecodeError
from userproxy.sources.kubernetes import wire

ZONE = {"topology.kubernetes.io/zone": "zone-a"}


def node(metadata: dict[str, Any] | None = None, spec: dict[str, Any] | None = None) -> Node:
    whole = objects.node("host1")
    whole["metadata"] |= metadata or {}
    whole["spec"] |= spec or {}
    return wire.decode_node(msgspec.Raw(json.dumps(whole).encode()))


def test_the_zone_is_that_of_the_label() -> None:
    assert node({"labels": ZONE}) == Node("host1", "zone-a")
    assert node() == Node("host1", "")


@pytest.mark.parametrize(
    ("metadata", "spec"),
    [
        ({"deletionTimestamp": "2026-11-23T06:00:00Z"}, {}),
        (
            {},
            {"taints": [{"key": "other"}, {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
        ),
    ],
)
def test_a_node_that_will_be_deleted_is_not_eligible(metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    assert not node(metadata, spec).eligible
    assert node({}, {"taints": [{"key": "other"}]}).eligible


def test_the_networks_of_its_pods_are_of_either_family() -> None:
    both = ["10.0.1.7/24", "fd00:1::/64", "nonsense"]
    assert node({}, {"podCIDRs": both}).pod_networks == ("10.0.1.0/24", "fd00:1::/64")
    assert node({}, {"podCIDR": "fd00:1::/64"}).pod_networks == ("fd00:1::/64",)


def test_a_node_of_another_shape_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"metadata\.labels"):
        node({"labels": "none"})


def test_items_are_kept_as_bytes_until_they_are_decoded() -> None:
    body = b'{"metadata":{"resourceVersion":"7","continue":"x"},"items":[{"metadata":{}},7]}'
    page = wire.decode_page(body, "WidgetList")
    assert (page.metadata.resource_version, page.metadata.continue_) == ("7", "x")
    assert [bytes(each) for each in page.items or ()] == [b'{"metadata":{}}', b"7"]


def test_metadata_is_read_alone() -> None:
    raw = msgspec.Raw(b'{"spec":{"a":[1]},"metadata":{"name":"n","namespace":"s","resourceVersion":"9"}}')
    meta = wire.meta(raw)
    assert (meta.key, meta.resource_version) == (wire.Name("s", "n"), "9")


def test_a_body_that_is_no_status_tells_nothing() -> None:
    assert wire.decode_status(b"<html>bad gateway</html>") == wire.Status()
    assert wire.decode_status(b'{"code":403,"message":"no"}') == wire.Status(403, "no")


def test_lines_are_cut_at_their_ends() -> None:
    lines = wire.Lines()
    chunks = (b"one\n\ntwo\nthr", b"", b"ee", b"\nfour\n", b"\n")
    assert [lines.feed(chunk) for chunk in chunks] == [[b"one", b"two"], [], [], [b"three", b"four"], []]


def test_what_others_say_is_one_line_without_tricks() -> None:
    assert wire.one_line("a\n\tb\x1b[31m") == "a b [31m"
    assert len(wire.one_line("x" * 10_000)) < 310
    assert (
        wire.beginning(b"<html>\r\n<body>\xff" + b"x" * 100) == "<html> <body>\\xffxxxxxxxxxxxxxxxxxxxxxx..."
    )
