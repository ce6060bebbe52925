"""A Service port: the unit of proxying, one listener and one host port each."""

from __future__ import annotations

import enum

import msgspec

from userproxy.model.address import Address
from userproxy.model.settings import Settings


class Protocol(enum.StrEnum):
    """What a Service port speaks. The values are those of the Kubernetes API."""

    TCP = "TCP"
    UDP = "UDP"


class Path(enum.StrEnum):
    """How a Service's bytes travel."""

    REDIRECT_TO_HOST = "redirect-to-host"
    """Netfilter sends the packet to our listener, and we relay."""

    REDIRECT_TO_POD = "redirect-to-pod"
    """Netfilter sends the packet straight to a pod."""


class TrafficPolicy(enum.StrEnum):
    """Which endpoints may take traffic: any, or those on this node. The values are those of the API."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class ServicePortName(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True):
    """The name of a Service port, stable over updates.

    Attributes:
        namespace: of the Service.
        service: its name.
        port: the port's name, empty where the only port of a Service has none.
    """

    namespace: str
    service: str
    port: str = ""

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.service}"
        return f"{name}:{self.port}" if self.port else name

    @classmethod
    def parse(cls, text: str) -> ServicePortName:
        """Read `ns/name` or `ns/name:port`.

        Raises:
            ValueError: text is of neither form; the message quotes it.
        """
        name, _, port = text.partition(":")
        namespace, separator, service = name.partition("/")
        if not separator or not namespace or not service or "/" in service:
            raise ValueError(f"{text!r} is not NAMESPACE/NAME or NAMESPACE/NAME:PORT")
        return cls(namespace, service, port)


class ServicePort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a Service, as its author wants it served.

    Attributes:
        name: its stable name.
        protocol: what it speaks.
        frontends: the addresses that reach it: each cluster IP with the Service's port.
        internal_traffic_policy: for traffic to the cluster IPs.
        external_traffic_policy: for traffic from outside the cluster.
        path: how its bytes travel; None leaves the choice to the daemon's mode.
        settings: what its author chose for it.
    """

    name: ServicePortName
    protocol: Protocol
    frontends: tuple[Address, ...]
    internal_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    path: Path | None = None
    settings: Settings = Settings()
