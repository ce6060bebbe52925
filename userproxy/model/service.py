"""A Service port: the unit of proxying, one listener and one host port each."""

from __future__ import annotations

import enum
import itertools

import msgspec

from userproxy.model.address import Address, IpFamily
from userproxy.model.settings import Settings

_LOCAL_SUFFIX, _IPV6_SUFFIX = "/local", "/ipv6"


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

    STEERED = "steered"
    """We choose the pod while the connection's first packet waits; netfilter sends all of them there."""


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


_POOLS = tuple(itertools.product(IpFamily, TrafficPolicy))


class PoolName(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True):
    """The name of a pool: a Service port, and which of its endpoints are meant: by policy and by family.

    Attributes:
        namespace: of the Service.
        service: its name.
        port: the port's name, empty where the only port of a Service has none.
        policy: that the traffic comes under.
        family: of the addresses, of clients and of endpoints.
    """

    namespace: str
    service: str
    port: str = ""
    policy: TrafficPolicy = TrafficPolicy.CLUSTER
    family: IpFamily = IpFamily.IPV4

    def __str__(self) -> str:
        local = "" if self.policy is TrafficPolicy.CLUSTER else _LOCAL_SUFFIX
        ipv6 = "" if self.family is IpFamily.IPV4 else _IPV6_SUFFIX
        return f"{self.service_port}{local}{ipv6}"

    @property
    def service_port(self) -> ServicePortName:
        """The Service port that it belongs to."""
        return ServicePortName(self.namespace, self.service, self.port)

    @classmethod
    def of(
        cls,
        name: ServicePortName,
        policy: TrafficPolicy = TrafficPolicy.CLUSTER,
        family: IpFamily = IpFamily.IPV4,
    ) -> PoolName:
        """The pool of a Service port for traffic under a policy, of a family."""
        return cls(name.namespace, name.service, name.port, policy, family)

    @classmethod
    def all_of(cls, name: ServicePortName) -> tuple[PoolName, ...]:
        """All pools that a Service port may have."""
        namespace, service, port = name.namespace, name.service, name.port
        return tuple(cls(namespace, service, port, policy, family) for family, policy in _POOLS)

    @classmethod
    def parse(cls, text: str) -> PoolName:
        """Read what `str` gives.

        Raises:
            ValueError: text is of no such form; the message quotes it.
        """
        of_family = text.removesuffix(_IPV6_SUFFIX)
        name = of_family.removesuffix(_LOCAL_SUFFIX)
        family = IpFamily.IPV4 if of_family == text else IpFamily.IPV6
        policy = TrafficPolicy.CLUSTER if name == of_family else TrafficPolicy.LOCAL
        return cls.of(ServicePortName.parse(name), policy, family)


class EntryKind(enum.StrEnum):
    """The ways to reach a Service port."""

    CLUSTER_IP = "cluster-ip"
    NODE_PORT = "node-port"
    EXTERNAL_IP = "external-ip"
    LOAD_BALANCER_IP = "load-balancer-ip"


class Entry(msgspec.Struct, frozen=True, order=True):
    """One way to reach a Service port.

    Attributes:
        kind: which way.
        address: where; of a node port, the unspecified address (`0.0.0.0`, `::`) with the port.
    """

    kind: EntryKind
    address: Address


class ServicePort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a Service, as its author wants it served.

    Attributes:
        name: its stable name.
        protocol: what it speaks.
        entries: the ways to reach it.
        internal_traffic_policy: for traffic to the cluster IPs.
        external_traffic_policy: for traffic that comes to the other entries from outside.
        source_ranges: the networks, in CIDR notation, whose clients alone may reach the load balancer IPs;
            none: anybody may.
        health_check_port: where load balancers ask whether this node has local endpoints; None: nowhere.
        affinity: seconds for which a client IP keeps its backend after its last new connection; None: not at
            all.
        path: how its bytes travel; None leaves the choice to the daemon's mode.
        settings: what its author chose for it.
    """

    name: ServicePortName
    protocol: Protocol
    entries: tuple[Entry, ...]
    internal_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    source_ranges: tuple[str, ...] = ()
    health_check_port: int | None = None
    affinity: float | None = None
    path: Path | None = None
    settings: Settings = Settings()

    @property
    def cluster_ips(self) -> tuple[Address, ...]:
        """The cluster IPs, each with the Service's port."""
        return tuple(entry.address for entry in self.entries if entry.kind is EntryKind.CLUSTER_IP)
