"""What is read of the Kubernetes API objects: typed, and no more of each than is used.

Fields that are not named here are ignored, so that the API may grow. Every field may be missing or null:
which ones must be there is a rule of `userproxy.sources.decode`, which can say so better.

The shapes are those of v1 Service and of discovery.k8s.io/v1 EndpointSlice.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
TRIGGER_TIME_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Of an object or namespace: RFC 1123, which the API server insists on."""

_AT = re.compile(r"^(?P<error>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_TYPE_NAMES = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "a string",
    "`bool`": "true or false",
    "`object`": "a mapping",
    "`array`": "a list",
    "`null`": "null",
}


class DecodeError(ValueError):
    """An object that cannot be served as it stands.

    Attributes:
        field: where in the object, `spec.ports[0].port`; empty for the object itself.
        error: what is wrong there, and what would be right.
    """

    def __init__(self, field: str, error: str) -> None:
        super().__init__(f"{field}: {error}" if field else error)
        self.field = field
        self.error = error


def typed(read: Callable[[], _T]) -> _T:
    """What `read` returns, with msgspec's complaint about a type turned into a `DecodeError`.

    Raises:
        DecodeError: the value has another shape than the API's; it names the field.
    """
    try:
        return read()
    except msgspec.ValidationError as failure:
        found = _AT.match(str(failure))
        path = (found and found["path"]) or ""
        error = (found and found["error"]) or str(failure)
        for type_name, words in _TYPE_NAMES.items():
            error = error.replace(type_name, words).replace(f"{type_name[:-1]} | null`", words)
        raise DecodeError(path.removeprefix("$").removeprefix("."), error[:1].lower() + error[1:]) from None
    except RecursionError:
        raise DecodeError("", "is nested too deeply") from None


class Labels(msgspec.Struct, frozen=True, gc=False):
    """The labels that have a meaning for a service proxy."""

    service_name: str | None = msgspec.field(default=None, name=SERVICE_NAME_LABEL)
    proxy_name: str | None = msgspec.field(default=None, name=PROXY_NAME_LABEL)
    headless: str | None = msgspec.field(default=None, name=HEADLESS_LABEL)


class ObjectMeta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`metadata`."""

    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    creation_timestamp: dt.datetime | None = None
    labels: Labels | None = None
    annotations: dict[str, object] | None = None


class ServicePortSpec(msgspec.Struct, frozen=True, gc=False):
    """`spec.ports[]` of a Service."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    node_port: int | None = msgspec.field(default=None, name="nodePort")


class ClientIP(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`spec.sessionAffinityConfig.clientIP` of a Service."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(msgspec.Struct, frozen=True, gc=False):
    """`spec.sessionAffinityConfig` of a Service."""

    client_ip: ClientIP | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`spec` of a Service."""

    type: str | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ports: list[ServicePortSpec] | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_source_ranges: list[str] | None = None
    health_check_node_port: int | None = None


class Ingress(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`status.loadBalancer.ingress[]` of a Service."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(msgspec.Struct, frozen=True, gc=False):
    """`status.loadBalancer` of a Service."""

    ingress: list[Ingress] | None = None


class ServiceStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`status` of a Service."""

    load_balancer: LoadBalancerStatus | None = None


class Service(msgspec.Struct, frozen=True, gc=False):
    """A v1 Service."""

    metadata: ObjectMeta | None = None
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class Conditions(msgspec.Struct, frozen=True, gc=False):
    """`endpoints[].conditions`."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(msgspec.Struct, frozen=True, gc=False):
    """One of `endpoints[].hints.forZones` or `forNodes`."""

    name: str | None = None


class Hints(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`endpoints[].hints`."""

    for_zones: list[Hint] | None = None
    for_nodes: list[Hint] | None = None


class SliceEndpoint(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`endpoints[]` of an EndpointSlice."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: Hints | None = None


class SlicePort(msgspec.Struct, frozen=True, gc=False):
    """`ports[]` of an EndpointSlice."""

    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A discovery.k8s.io/v1 EndpointSlice."""

    metadata: ObjectMeta | None = None
    address_type: str | None = None
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None
