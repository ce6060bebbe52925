"""API objects become the model, by the rules that kube-proxy follows. Pure.

A value that its author cannot have meant raises `DecodeError`, which names the field. A part that can be left
out without touching the rest (an endpoint without an address, an SCTP port) becomes a `Problem`.

Sources of the rules: the API reference of v1 Service and discovery.k8s.io/v1 EndpointSlice; kube-proxy's
`ShouldSkipService` and `endpointslicecache.go`, and the label selectors of its informers.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from userproxy.model.address import MAX_PORT, Address, IpFamily, canonical_ip
from userproxy.model.endpoint import Endpoint
from userproxy.model.service import ServicePort, ServicePortName
from userproxy.model.snapshot import Problem
from userproxy.sources import api
from userproxy.sources.api import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_CANONICAL_IPV4 = re.compile(
    rf"{_OCTET}(?:\.{_OCTET}){{3}}"
)  # spares `ipaddress` the endpoints of a large cluster


class Kind(enum.StrEnum):
    """The kinds of objects that are read."""

    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"


class ObjectKey(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True):
    """What tells one API object from another."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class ServiceObject(msgspec.Struct, frozen=True):
    """A Service, decoded.

    Attributes:
        key: its name.
        ports: each with every frontend it asks for; empty if this proxy is not to serve it.
        created: seconds since the epoch, or None if the object does not say.
        problems: what was left out of it.
    """

    key: ObjectKey
    ports: tuple[ServicePort, ...] = ()
    created: float | None = None
    problems: tuple[Problem, ...] = ()


class SliceObject(msgspec.Struct, frozen=True):
    """An EndpointSlice, decoded.

    Attributes:
        key: its name.
        endpoints: by the Service port that they stand behind, each sorted by address.
        problems: what was left out of it.
        triggered: when what led to it happened, in seconds since the epoch; None if it does not say.
        family: of its addresses.
    """

    key: ObjectKey
    endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
    problems: tuple[Problem, ...] = ()
    triggered: float | None = None
    family: IpFamily = IpFamily.IPV4


DecodedObject = ServiceObject | SliceObject


def object_key(kind: Kind, metadata: api.ObjectMeta | None) -> ObjectKey:
    """The key of an object; one without a namespace is in `default`, as for kubectl.

    Raises:
        DecodeError: the name or namespace is missing or is none that Kubernetes accepts.
    """
    if metadata is None or not metadata.name:
        raise DecodeError("metadata.name", "is missing")
    namespace = metadata.namespace or "default"
    for field, name in (("metadata.name", metadata.name), ("metadata.namespace", namespace)):
        if not api.NAME.fullmatch(name):
            raise DecodeError(
                field, f"{name!r} is not a name: lower-case letters, digits, '-' and '.' (RFC 1123)"
            )
    return ObjectKey(kind, sys.intern(namespace), sys.intern(metadata.name))


class Scope(NamedTuple):
    """Which Services this daemon serves, and what of them.

    Attributes:
        proxy_name: those that are labelled for this proxy; None: those that are labelled for no proxy.
        external_ips: their `externalIPs` too.
    """

    proxy_name: str | None = None
    external_ips: bool = True


EVERYTHING = Scope()


def decode_slice(endpoint_slice: api.EndpointSlice, scope: Scope = EVERYTHING) -> SliceObject:
    """Decode an EndpointSlice; its conditions get the API's nil-defaults.

    Only the first of an endpoint's addresses is used, as kube-proxy does.

    Args:
        endpoint_slice: the API object.
        scope: what is served; a slice without the label of a proxy follows its Service.

    Raises:
        DecodeError: it cannot be used as it stands.
    """
    key = object_key(Kind.ENDPOINT_SLICE, endpoint_slice.metadata)
    labels = (endpoint_slice.metadata and endpoint_slice.metadata.labels) or api.Labels()
    for_another = labels.proxy_name is not None and labels.proxy_name != scope.proxy_name
    if for_another or labels.headless is not None or endpoint_slice.address_type == "FQDN":
        return SliceObject(key)
    if endpoint_slice.address_type not in ("IPv4", "IPv6"):
        raise DecodeError("addressType", f"{_said(endpoint_slice.address_type)}, not IPv4 or IPv6")
    if not labels.service_name:
        message = f"{key} has no label {api.SERVICE_NAME_LABEL}, so that it belongs to no Service: add it"
        return SliceObject(key, problems=(Problem(f"{key.namespace}/{key.name}", "NoServiceName", message),))
    if not api.NAME.fullmatch(labels.service_name):
        field = f"metadata.labels[{api.SERVICE_NAME_LABEL}]"
        raise DecodeError(field, f"{labels.service_name!r} is not the name of a Service")
    service = sys.intern(labels.service_name)
    flaws: list[tuple[str, str]] = []
    ports = list(_slice_ports(endpoint_slice.ports, flaws))
    usable = list(_usable_endpoints(endpoint_slice, flaws)) if ports else []
    endpoints = {
        ServicePortName(key.namespace, service, name): merge(_at_port(usable, port))
        for name, port in ports
        if usable
    }
    problems = _flaw_problems(f"{key.namespace}/{service}", key, flaws)
    family = IpFamily(endpoint_slice.address_type)
    return SliceObject(key, endpoints, problems, _triggered(endpoint_slice.metadata), family)


def _triggered(metadata: api.ObjectMeta | None) -> float | None:
    when = ((metadata and metadata.annotations) or {}).get(api.TRIGGER_TIME_ANNOTATION)
    try:
        return dt.datetime.fromisoformat(str(when)).timestamp() if when else None
    except (ValueError, OverflowError):
        return None


def merge(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The endpoints sorted by address, each address once.

    Of several with one address, the one most able to serve stays: ready, else serving, else not terminating.
    """
    best: dict[Address, Endpoint] = {}
    for endpoint in endpoints:
        rival = best.setdefault(endpoint.address, endpoint)
        if rival is not endpoint and _fitness(endpoint) > _fitness(rival):
            best[endpoint.address] = endpoint
    return tuple(best[address] for address in sorted(best))


def _fitness(endpoint: Endpoint) -> tuple[bool, bool, bool]:
    return endpoint.ready, endpoint.serving, not endpoint.terminating


def is_ours(labels: api.Labels | None, scope: Scope) -> bool:
    """Whether an object with these labels is for this proxy to serve."""
    return labels is None or (labels.headless is None and labels.proxy_name == scope.proxy_name)


def is_of_one_link(ip: str) -> bool:
    """Whether a canonical address is an IPv6 one that is valid on one link alone (fe80::/10)."""
    return ip.startswith(("fe8", "fe9", "fea", "feb"))


def _said(value: str | None) -> str:
    return "is missing" if value is None else f"is {value!r}"


def _slice_ports(
    ports: list[api.SlicePort] | None, flaws: list[tuple[str, str]]
) -> Iterator[tuple[str, int]]:
    names: set[str] = set()
    for index, port in enumerate(ports or ()):
        name, number = port.name or "", port.port
        if name in names or (name and not PORT_NAME.fullmatch(name)):
            fault = "repeats" if name in names else "is not lower-case letters, digits and '-':"
            raise DecodeError(f"ports[{index}].name", f"{fault} {name!r}")
        names.add(name)
        if number is None or not 0 < number <= MAX_PORT:
            flaws.append(("BadEndpointPort", f"ports[{index}].port {_said_number(number)}"))
        else:
            yield sys.intern(name), number


def _said_number(number: int | None) -> str:
    return "is missing" if number is None else f"{number} is not 1 to {MAX_PORT}"


_Usable = tuple[str, api.SliceEndpoint]


def _usable_endpoints(endpoint_slice: api.EndpointSlice, flaws: list[tuple[str, str]]) -> Iterator[_Usable]:
    """Each endpoint that has an address of the slice's family, with that address in canonical form."""
    is_ipv6 = endpoint_slice.address_type == "IPv6"
    for index, endpoint in enumerate(endpoint_slice.endpoints or ()):
        addresses = endpoint.addresses or [""]
        ip = addresses[0]
        if is_ipv6 or not _CANONICAL_IPV4.fullmatch(ip):
            try:
                ip = canonical_ip(ip)
            except ValueError as failure:
                what = str(failure) if ip else "has no address"
                flaws.append(("BadEndpoint", f"endpoints[{index}] {what}"))
                continue
            if (":" in ip) != is_ipv6 or is_of_one_link(ip):
                what = f"{ip} is valid on one link alone"
                if (":" in ip) != is_ipv6:
                    what = f"{ip} is not {endpoint_slice.address_type}"
                flaws.append(("BadEndpoint", f"endpoints[{index}] {what}"))
                continue
        if len(addresses) > 1:
            what = f"endpoints[{index}] has {len(addresses)} addresses, of which the first is used"
            flaws.append(("ExtraAddresses", what))
        yield ip, endpoint


def _at_port(usable: Iterable[_Usable], port: int) -> Iterator[Endpoint]:
    hints: dict[tuple[str, ...], tuple[str, ...]] = {}
    for ip, endpoint in usable:
        conditions = endpoint.conditions or api.Conditions()
        ready = conditions.ready is not False
        zones, nodes = _hints(endpoint.hints)
        yield Endpoint(
            address=Address(ip, port),
            node=sys.intern(endpoint.node_name or ""),
            zone=sys.intern(endpoint.zone or ""),
            ready=ready,
            serving=ready if conditions.serving is None else conditions.serving,
            terminating=bool(conditions.terminating),
            hint_zones=hints.setdefault(zones, zones),
            hint_nodes=hints.setdefault(nodes, nodes),
        )


def _hints(hints: api.Hints | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if hints is None:
        return (), ()
    zones, nodes = (
        tuple(sorted({hint.name for hint in chosen or () if hint.name}))
        for chosen in (hints.for_zones, hints.for_nodes)
    )
    return zones, nodes


def _flaw_problems(about: str, key: ObjectKey, flaws: list[tuple[str, str]]) -> tuple[Problem, ...]:
    """One problem for each reason: the first flaw, and how many more there are."""
    by_reason: dict[str, list[str]] = {}
    for reason, flaw in flaws:
        by_reason.setdefault(reason, []).append(flaw)
    remedy = {"ExtraAddresses": "give each pod an endpoint of its own"}
    return tuple(
        Problem(
            about,
            reason,
            f"{key}: {found[0]}{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}; "
            + remedy.get(reason, "left out: correct or remove it"),
        )
        for reason, found in by_reason.items()
    )
