"""The bytes of the API's lists and watches, and of the Node object. Pure.

Items are not looked into at first: a page of 500 EndpointSlices takes a millisecond that way, and its items
are then decoded one by one, with other work in between.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from userproxy.model.snapshot import Node
from userproxy.sources.api import typed

ZONE_LABEL = "topology.kubernetes.io/zone"

DOOMED_TAINT = "ToBeDeletedByClusterAutoscaler"
"""On a node that the cluster autoscaler is about to delete, which load balancers should no longer choose."""

GONE = 410


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


class ListMeta(msgspec.Struct, frozen=True, gc=False, rename={"resource_version": "resourceVersion"}):
    """`metadata` of a list; `continue_` is empty on its last page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, frozen=True):
    """One page of a list, its items not decoded yet."""

    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


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


class _Node(msgspec.Struct, frozen=True, gc=False):
    metadata: _NodeMeta = _NodeMeta()
    spec: _NodeSpec = _NodeSpec()


_page = msgspec.json.Decoder(Page)
_event = msgspec.json.Decoder(WatchEvent)
_headed = msgspec.json.Decoder(_Headed)
_status = msgspec.json.Decoder(Status)
_node = msgspec.json.Decoder(_Node)


def decode_page(body: bytes) -> Page:
    """Read a page of a list.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _page.decode(body)


def decode_event(line: bytes) -> WatchEvent:
    """Read a line of a watch.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _event.decode(line)


def meta(raw: msgspec.Raw) -> Meta:
    """The metadata of an object, without decoding the rest.

    Raises:
        msgspec.DecodeError: it is no object.
    """
    return _headed.decode(raw).metadata


def decode_status(body: bytes | msgspec.Raw) -> Status:
    """Read the reason of a failure; a body that tells none, such as that of a proxy, is an empty one."""
    try:
        return _status.decode(body)
    except msgspec.DecodeError:
        return Status()


def decode_node(raw: msgspec.Raw) -> Node:
    """Decode a Node: its zone, and whether load balancers may choose it.

    Raises:
        DecodeError: it has another shape than the API's.
    """
    node = typed(lambda: _node.decode(raw))
    doomed = any(taint.key == DOOMED_TAINT for taint in node.spec.taints or ())
    return Node(
        name=node.metadata.name,
        zone=(node.metadata.labels and node.metadata.labels.zone) or "",
        eligible=node.metadata.deletion_timestamp is None and not doomed,
    )


def lines(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines at the beginning of a buffer, and the part of one that is left."""
    *whole, rest = buffer.split(b"\n")
    return [line for line in whole if line.strip()], rest
