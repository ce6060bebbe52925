"""The bytes of the API's lists and watches, and of the Node object. Pure.

Items are not looked into at first: a page of 500 EndpointSlices takes a millisecond that way, and its items
are then decoded one by one, with other work in between.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from userproxy.model.snapshot import Node
from userproxy.sources.api import NAME, DecodeError, typed

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONE_LABEL = "topology.kubernetes.io/zone"

DOOMED_TAINT = "ToBeDeletedByClusterAutoscaler"
"""On a node that the cluster autoscaler is about to delete, which load balancers should no longer choose."""

GONE = 410

MAX_LINE = 32 << 20
"""Bytes in a line of a watch: many times what the API server lets an object have (3 MiB)."""

_T = TypeVar("_T")

_MOST_SAID = 300
_EXCERPT = 40


class Name(NamedTuple):
    """What tells objects of one kind apart; the namespace of a Node is empty."""

    namespace: str
    name: str


class Meta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`metadata` of any object."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    uid: str = ""

    @property
    def key(self) -> Name:
        """The object's name."""
        return Name(self.namespace, self.name)


class _Headed(msgspec.Struct, frozen=True, gc=False):
    metadata: Meta = Meta()


class _OnlyName(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""


class _Named(msgspec.Struct, frozen=True, gc=False):
    metadata: _OnlyName = _OnlyName()


class ListMeta(msgspec.Struct, frozen=True, gc=False, rename={"resource_version": "resourceVersion"}):
    """`metadata` of a list; `continue_` is empty on its last page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, frozen=True):
    """One page of a list, its items not decoded yet; null stands for none."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None
    kind: str = ""


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch, its object not decoded yet."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True, gc=False):
    """Why a request failed; the body of an error, and the object of an ERROR event."""

    code: int | None = None
    message: str | None = None


class _Taint(msgspec.Struct, frozen=True, gc=False):
    key: str = ""


class _NodeLabels(msgspec.Struct, frozen=True, gc=False):
    zone: str | None = msgspec.field(default=None, name=ZONE_LABEL)


class _NodeMeta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    name: str = ""
    labels: _NodeLabels | None = None
    deletion_timestamp: str | None = None


class _NodeSpec(msgspec.Struct, frozen=True, gc=False):
    taints: list[_Taint] | None = None
    pod_cidr: str | None = msgspec.field(default=None, name="podCIDR")
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")


class _Node(msgspec.Struct, frozen=True, gc=False):
    metadata: _NodeMeta = _NodeMeta()
    spec: _NodeSpec = _NodeSpec()


_page = msgspec.json.Decoder(Page)
_event = msgspec.json.Decoder(WatchEvent)
_headed = msgspec.json.Decoder(_Headed)
_named = msgspec.json.Decoder(_Named)
_status = msgspec.json.Decoder(Status)
_node = msgspec.json.Decoder(_Node)


def read(decoder: msgspec.json.Decoder[_T], text: bytes | msgspec.Raw) -> _T:
    """What a decoder makes of it.

    Raises:
        DecodeError: it is not JSON, or has another shape than the API's; it names the field.
    """
    try:
        return typed(lambda: decoder.decode(text))
    except msgspec.DecodeError as failure:
        raise DecodeError("", f"is not JSON: {failure}") from None
    except UnicodeDecodeError:
        raise DecodeError("", "is not UTF-8") from None


def decode_page(body: bytes, kind: str, token: str = "") -> Page:
    """Read a page of a list.

    An answer that is no whole page is never taken for one without items, which would mean that all is gone.

    Args:
        body: of the answer.
        kind: that a list of this resource is of, `ServiceList`.
        token: that this page was asked for with.

    Raises:
        DecodeError: it is none.
    """
    page = read(_page, body)
    if page.kind not in ("", kind):
        raise DecodeError("kind", f"is {page.kind!r}, not {kind}")
    if not page.metadata.resource_version:
        raise DecodeError("metadata.resourceVersion", "is missing")
    if token and page.metadata.continue_ == token:
        raise DecodeError("metadata.continue", "leads to the same page again")
    return page


def decode_event(line: bytes) -> WatchEvent:
    """Read a line of a watch.

    Raises:
        DecodeError: it is none.
    """
    return read(_event, line)


def meta(raw: msgspec.Raw) -> Meta:
    """The metadata of an object, without decoding the rest; no more than its name, if only that makes sense.

    Raises:
        DecodeError: it has no name.
    """
    try:
        found = _headed.decode(raw).metadata
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        named = read(_named, raw).metadata
        found = Meta(named.name, named.namespace)
    if not NAME.fullmatch(found.name):
        raise DecodeError("metadata.name", f"is {one_line(repr(found.name))}" if found.name else "is missing")
    if found.namespace and not NAME.fullmatch(found.namespace):
        raise DecodeError("metadata.namespace", f"is {one_line(repr(found.namespace))}")
    return found


def version(raw: msgspec.Raw) -> str:
    """The resourceVersion of a bookmark, which is an object without a name.

    Raises:
        DecodeError: it has none.
    """
    found = read(_headed, raw).metadata.resource_version
    if not found:
        raise DecodeError("metadata.resourceVersion", "is missing")
    return found


def decode_status(body: bytes | msgspec.Raw) -> Status:
    """Read the reason of a failure; a body that tells none, such as that of a proxy, is an empty one."""
    try:
        return read(_status, body)
    except DecodeError:
        return Status()


def decode_node(raw: msgspec.Raw) -> Node:
    """Decode a Node: its zone, and whether load balancers may choose it.

    Raises:
        DecodeError: it has another shape than the API's.
    """
    node = read(_node, raw)
    doomed = any(taint.key == DOOMED_TAINT for taint in node.spec.taints or ())
    return Node(
        name=node.metadata.name,
        zone=(node.metadata.labels and node.metadata.labels.zone) or "",
        eligible=node.metadata.deletion_timestamp is None and not doomed,
        pod_networks=tuple(_networks(node.spec)),
    )


def _networks(spec: _NodeSpec) -> Iterator[str]:
    """The networks of the node's pods; what is none is nobody's."""
    for text in spec.pod_cidrs or filter(None, [spec.pod_cidr]):
        with contextlib.suppress(ValueError):
            yield str(ipaddress.ip_network(text, strict=False))


class Lines:
    """Cuts what comes of a watch into lines."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are whole now, without the empty ones.

        Raises:
            DecodeError: a line has no end.
        """
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._rest, whole[0]))
            self._rest, self._size = [], 0
        self._rest.append(rest)
        self._size += len(rest)
        if self._size > MAX_LINE:
            raise DecodeError("", f"a line of more than {MAX_LINE >> 20} MiB")
        return [line for line in whole if line.strip()]


def one_line(said: object) -> str:
    """What somebody else has said, as a line that fits into a log."""
    text = "".join(char if char.isprintable() else " " for char in " ".join(str(said).split()))
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}..."


def beginning(body: bytes) -> str:
    """How a body begins, which tells a person what has answered."""
    text = body[: _EXCERPT + 1].decode(errors="backslashreplace")
    return one_line(text[:_EXCERPT]) + ("..." if len(text) > _EXCERPT else "")
