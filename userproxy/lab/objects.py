"""Kubernetes API objects as plain dicts, in the shape that the API server prints. Pure.

One place for the lab, the benchmark and the tests. What needs no thought has a default; the rest of a spec
are keywords with the API's own names. Nothing is checked: whoever wants a wrong object changes a right one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Object = dict[str, Any]
"""A Kubernetes API object."""

NAMESPACE = "default"
ZONE_LABEL = "topology.kubernetes.io/zone"


class Metadata(TypedDict, total=False):
    """What an object's metadata may say beside its name."""

    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Port(NamedTuple):
    """One port of a Service, and the port behind it in each pod.

    Attributes:
        port: of the Service.
        target: of its pods; 0 for the same.
        name: needed where there are several.
        protocol: TCP, UDP or SCTP.
        node_port: 0 for none.
    """

    port: int
    target: int = 0
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0

    @property
    def behind(self) -> int:
        """The port in each pod."""
        return self.target or self.port


class ClientIP(TypedDict):
    """How long a client keeps its backend, in seconds."""

    timeoutSeconds: int


class AffinityConfig(TypedDict):
    """Of the session affinity `ClientIP`."""

    clientIP: ClientIP


class ServiceSpec(TypedDict, total=False):
    """A Service's spec, but for its cluster IPs and ports."""

    type: str
    externalName: str
    externalIPs: Sequence[str]
    ipFamilies: Sequence[str]
    ipFamilyPolicy: str
    internalTrafficPolicy: str
    externalTrafficPolicy: str
    trafficDistribution: str
    healthCheckNodePort: int
    allocateLoadBalancerNodePorts: bool
    loadBalancerSourceRanges: Sequence[str]
    sessionAffinity: str
    sessionAffinityConfig: AffinityConfig
    publishNotReadyAddresses: bool


class Ingress(TypedDict, total=False):
    """One address of a load balancer. `ipMode` is `VIP` or `Proxy`."""

    ip: str
    hostname: str
    ipMode: str


def service(
    name: str,
    cluster_ips: Sequence[str] = (),
    ports: Sequence[Port] = (),
    *,
    metadata: Metadata | None = None,
    ingress: Sequence[Ingress] = (),
    **spec: Unpack[ServiceSpec],
) -> Object:
    """A Service.

    Args:
        name: in the namespace `default`, unless the metadata says otherwise.
        cluster_ips: one, or one of each family with the first one's preferred; `["None"]` makes it headless.
        ports: that it has.
        metadata: beside the name.
        ingress: of its load balancer, in the status (which `kubectl apply` leaves alone).
        spec: further fields; they replace what follows from the other arguments.
    """
    fields: Object = {}
    if cluster_ips:
        fields |= {"clusterIP": cluster_ips[0], "clusterIPs": [*cluster_ips]}
        if "None" not in cluster_ips:
            fields["ipFamilies"] = [_family(ip) for ip in cluster_ips]
            fields["ipFamilyPolicy"] = "SingleStack" if len(cluster_ips) == 1 else "RequireDualStack"
    if ports:
        fields["ports"] = [_service_port(port) for port in ports]
    made = _object("v1", "Service", name, metadata) | {"spec": fields | spec}
    return made | {"status": {"loadBalancer": {"ingress": [*ingress]}}} if ingress else made


class Conditions(TypedDict, total=False):
    """Of an endpoint."""

    ready: bool
    serving: bool
    terminating: bool


READY: Conditions = {"ready": True, "serving": True, "terminating": False}
TERMINATING: Conditions = {"ready": False, "serving": True, "terminating": True}
"""Of a pod that is being deleted, and still serves."""


def endpoint(
    ip: str,
    node: str = "",
    conditions: Conditions = READY,
    *,
    zone: str = "",
    for_zones: Sequence[str] = (),
    for_nodes: Sequence[str] = (),
) -> Object:
    """An endpoint of an EndpointSlice.

    Args:
        ip: of the pod.
        node: that carries it.
        conditions: `READY`, `TERMINATING`, or any other.
        zone: that it is in.
        for_zones: its hints: whose clients should use it.
        for_nodes: the same, by node.
    """
    made: Object = {"addresses": [ip], "conditions": {**conditions}}
    if node:
        made["nodeName"] = node
    if zone:
        made["zone"] = zone
    named = {"forZones": for_zones, "forNodes": for_nodes}
    if hints := {kind: [{"name": each} for each in names] for kind, names in named.items() if names}:
        made["hints"] = hints
    return made


def endpoint_slice(
    name: str,
    of: str,
    ports: Sequence[Port] = (),
    endpoints: Iterable[Object] = (),
    *,
    metadata: Metadata | None = None,
) -> Object:
    """An EndpointSlice; of IPv6 addresses if its first endpoint has one.

    Args:
        name: its own.
        of: the Service's.
        ports: the Service's.
        endpoints: as `endpoint` makes them.
        metadata: beside the names.
    """
    endpoints = [*endpoints]
    made = _object("discovery.k8s.io/v1", "EndpointSlice", name, metadata)
    labels = {"kubernetes.io/service-name": of} | made["metadata"].get("labels", {})
    made["metadata"] |= {"labels": labels}
    return made | {
        "addressType": _family(endpoints[0]["addresses"][0]) if endpoints else "IPv4",
        "ports": [_slice_port(port) for port in ports],
        "endpoints": endpoints,
    }


def endpoints(name: str, ports: Sequence[Port], ips: Sequence[str], node: str) -> Object:
    """The Endpoints of a Service with all of its pods on one node: what there was before EndpointSlices."""
    addresses = [{"ip": ip, "nodeName": node} for ip in ips]
    subset = {"addresses": addresses, "ports": [_slice_port(port) for port in ports]}
    return _object("v1", "Endpoints", name, None) | {"subsets": [subset]}


def node(name: str, zone: str = "", *, metadata: Metadata | None = None) -> Object:
    """A Node, in a zone if it is named."""
    made = _object("v1", "Node", name, metadata)
    del made["metadata"]["namespace"]
    if zone:
        made["metadata"]["labels"] = {ZONE_LABEL: zone} | made["metadata"].get("labels", {})
    return made | {"spec": {}}


def manifest(objects: Iterable[Object], indent: int | None = 2) -> str:
    """Objects as the content of one file: JSON documents, which are YAML documents too."""
    return "---\n".join(json.dumps(each, indent=indent) + "\n" for each in objects)


def listed(objects: Iterable[Object]) -> Object:
    """Objects in a List, as `kubectl get -o json` prints them."""
    return {"apiVersion": "v1", "kind": "List", "items": [*objects]}


def _object(version: str, kind: str, name: str, metadata: Metadata | None) -> Object:
    whole = {"namespace": NAMESPACE, "name": name, **(metadata or {})}
    return {"apiVersion": version, "kind": kind, "metadata": whole}


def _service_port(port: Port) -> Object:
    made: Object = {"name": port.name} if port.name else {}
    made |= {"protocol": port.protocol, "port": port.port, "targetPort": port.behind}
    return made | {"nodePort": port.node_port} if port.node_port else made


def _slice_port(port: Port) -> Object:
    return {"name": port.name, "protocol": port.protocol, "port": port.behind}


def _family(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"
