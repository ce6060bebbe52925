"""Desired state: everything a source knows at one moment."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from userproxy.model.address import IpFamily
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import ServicePort, ServicePortName


class Problem(msgspec.Struct, frozen=True, order=True):
    """Something that a user must know of, in one line that says what to do.

    Attributes:
        about: what it concerns: `ns/name:port`, `ns/name`, or a file.
        reason: one CamelCase word, as in Kubernetes events (`PortConflict`).
        message: one line: what is wrong, and the remedy.
    """

    about: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.about}: {self.message}"


class Notice(msgspec.Struct, frozen=True):
    """Something that somebody may act upon. It happens, and may happen again; it is nobody's fault.

    Attributes:
        about: the Service port, `ns/name:port`.
        reason: one CamelCase word, as in Kubernetes events (`NeedPods`).
        message: one line: what is the matter, and what can be done.
    """

    about: str
    reason: str
    message: str


class Node(msgspec.Struct, frozen=True):
    """The node that this daemon runs on, as far as topology is concerned.

    Attributes:
        name: of the Node object.
        zone: its zone, or empty.
        eligible: load balancers may choose it: it exists, and is not about to be deleted.
        pod_networks: the networks of its pods in CIDR notation, as far as the cluster assigns any.
    """

    name: str
    zone: str = ""
    eligible: bool = True
    pod_networks: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """The whole desired state at one moment. Never changed in place; the latest one wins.

    A source that produces one Snapshot after another keeps the identity of the values that did not
    change (`services[name] is previous.services[name]`), so that comparing two of them is cheap.

    Attributes:
        services: by name, only those that this daemon is to serve.
        endpoints: by Service port, every endpoint known, ready or not, sorted by address, each address
            once. May lack a Service port, and may have ones that no Service has (yet).
        problems: what the source had to leave out or decide, sorted.
        node: this daemon's own, where the source knows of nodes.
        triggers: when what has changed since the one before was triggered, in seconds since the epoch, with
            the family of the endpoints; as the EndpointSlices tell it. The same object again: nothing new.
    """

    services: Mapping[ServicePortName, ServicePort]
    endpoints: Mapping[ServicePortName, tuple[Endpoint, ...]]
    problems: tuple[Problem, ...] = ()
    node: Node | None = None
    triggers: tuple[tuple[IpFamily, float], ...] = ()


EMPTY = Snapshot({}, {})
