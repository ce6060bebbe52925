"""A v1 Service becomes the model, by the rules that kube-proxy follows. Pure.

Whatever of it cannot be served (an SCTP port, an address that is none) becomes a `Problem`, and the rest is
served. Sources: the API reference of v1 Service; kube-proxy's `pkg/proxy/serviceport.go`.
"""

from __future__ import annotations

import enum
import ipaddress
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from userproxy.model.address import MAX_PORT, Address, IpFamily, canonical_ip, family_of
from userproxy.model.service import (
    Entry,
    EntryKind,
    Path,
    Protocol,
    ServicePort,
    ServicePortName,
    TrafficPolicy,
)
from userproxy.model.snapshot import Problem
from userproxy.sources import api
from userproxy.sources.annotations import read_path, read_settings
from userproxy.sources.api import DecodeError
from userproxy.sources.decode import (
    EVERYTHING,
    PORT_NAME,
    Kind,
    ObjectKey,
    Scope,
    ServiceObject,
    is_of_one_link,
    is_ours,
    object_key,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping

_E = TypeVar("_E", bound=enum.StrEnum)

_RANGES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"
_ANY = {IpFamily.IPV4: "0.0.0.0", IpFamily.IPV6: "::"}  # noqa: S104 - the address of a node port
_SHOWN_IPS = 4
_DEFAULT_AFFINITY = 10800
_LONGEST_AFFINITY = 86400
_NOBODY = "255.255.255.255/32"
"""The source range of a Service of which no range can be read: no client has that address."""


def decode_service(service: api.Service, scope: Scope = EVERYTHING) -> ServiceObject:
    """Decode a Service.

    Args:
        service: the API object.
        scope: what is served.

    Raises:
        DecodeError: it cannot be served as it stands.
    """
    key = object_key(Kind.SERVICE, service.metadata)
    metadata, spec = service.metadata or api.ObjectMeta(), service.spec or api.ServiceSpec()
    ips = _cluster_ips(spec)
    if spec.type == "ExternalName" or not ips or not is_ours(metadata.labels, scope):
        return ServiceObject(key)
    problems: list[Problem] = []
    about, chosen = f"{key.namespace}/{key.name}", metadata.annotations or {}
    path = read_path(chosen, about, problems)
    settings = read_settings(chosen, about, problems)
    if settings.needs_relay and path in (Path.REDIRECT_TO_POD, Path.STEERED):
        message = f"the PROXY protocol takes a relay: path {Path.REDIRECT_TO_HOST} is used for TCP"
        problems.append(Problem(about, "BadAnnotation", message))
    internal = _choice(TrafficPolicy, "spec.internalTrafficPolicy", spec.internal_traffic_policy)
    external = _choice(TrafficPolicy, "spec.externalTrafficPolicy", spec.external_traffic_policy)
    # An address that is both is the load balancer's: its source ranges hold there.
    others = [*_balancer_ips(about, service.status, problems), *_external_ips(about, spec, scope, problems)]
    others = _of_its_families(about, ips, others, problems)
    ranges = _source_ranges(about, spec, chosen, problems)
    affinity = _affinity(about, spec, problems)
    health_check_port = _health_check_port(about, spec, problems) if external is TrafficPolicy.LOCAL else None
    ports = tuple(
        ServicePort(
            name=port.name,
            protocol=port.protocol,
            entries=_entries(port, ips, others),
            internal_traffic_policy=internal or TrafficPolicy.CLUSTER,
            external_traffic_policy=external or TrafficPolicy.CLUSTER,
            source_ranges=ranges,
            health_check_port=health_check_port,
            affinity=affinity,
            path=Path.REDIRECT_TO_HOST if port.protocol is Protocol.TCP and settings.needs_relay else path,
            settings=settings,
        )
        for port in _service_ports(key, spec.ports, problems)
    )
    return ServiceObject(key, ports, _timestamp(metadata.creation_timestamp), tuple(problems))


class _Port(NamedTuple):
    """One of a Service's ports."""

    name: ServicePortName
    protocol: Protocol
    number: int
    node_port: int | None


def _entries(port: _Port, ips: tuple[str, ...], others: list[tuple[EntryKind, str]]) -> tuple[Entry, ...]:
    """The ways to reach one port, each address once."""
    entries = {Address(ip, port.number): EntryKind.CLUSTER_IP for ip in ips}
    if port.node_port:
        for family in dict.fromkeys(map(family_of, ips)):
            entries[Address(_ANY[family], port.node_port)] = EntryKind.NODE_PORT
    for kind, ip in others:
        entries.setdefault(Address(ip, port.number), kind)
    return tuple(Entry(kind, address) for address, kind in entries.items())


def _external_ips(
    about: str, spec: api.ServiceSpec, scope: Scope, problems: list[Problem]
) -> Iterator[tuple[EntryKind, str]]:
    if spec.external_ips and not scope.external_ips:
        said = ", ".join(map(str, spec.external_ips[:_SHOWN_IPS]))
        message = f"spec.externalIPs: {said} are not served, as --external-ips is false: remove them"
        problems.append(Problem(about, "ExternalIPsOff", message))
        return
    for index, text in enumerate(spec.external_ips or ()):
        ip = _usable_ip(f"spec.externalIPs[{index}]", text, about, problems)
        if ip:
            yield EntryKind.EXTERNAL_IP, ip


def _balancer_ips(
    about: str, status: api.ServiceStatus | None, problems: list[Problem]
) -> Iterator[tuple[EntryKind, str]]:
    """Those of its load balancer; not those on which that is a proxy itself (KEP-1860)."""
    balancer = (status and status.load_balancer) or api.LoadBalancerStatus()
    for index, ingress in enumerate(balancer.ingress or ()):
        if ingress.ip and ingress.ip_mode in (None, "", "VIP"):
            ip = _usable_ip(f"status.loadBalancer.ingress[{index}].ip", ingress.ip, about, problems)
            if ip:
                yield EntryKind.LOAD_BALANCER_IP, ip


def _of_its_families(
    about: str, ips: tuple[str, ...], others: list[tuple[EntryKind, str]], problems: list[Problem]
) -> list[tuple[EntryKind, str]]:
    """Those of a family that it has a cluster IP of: it has no endpoints of another one."""
    families = set(map(family_of, ips))
    for kind, ip in others:
        if family_of(ip) not in families:
            family = family_of(ip)
            message = (
                f"{ip}, as {kind}, is {family}, and the Service has no {family} cluster IP; it is left out: "
                f"make it a Service of both families (ipFamilyPolicy), or take the address from it"
            )
            problems.append(Problem(about, "IPFamilyMismatch", message))
    return [(kind, ip) for kind, ip in others if family_of(ip) in families]


def _usable_ip(field: str, text: str, about: str, problems: list[Problem]) -> str:
    """In canonical form; empty, and a problem, for what nobody can have an address for."""
    try:
        address = ipaddress.ip_address(canonical_ip(text))
    except ValueError as failure:
        problems.append(Problem(about, "BadAddress", f"{field}: {failure}; it is left out: correct it"))
        return ""
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local:
        message = f"{field}: {text} is none that clients could be sent to; it is left out: correct it"
        problems.append(Problem(about, "BadAddress", message))
        return ""
    return str(address)


def _source_ranges(
    about: str, spec: api.ServiceSpec, annotations: Mapping[str, object], problems: list[Problem]
) -> tuple[str, ...]:
    """The networks whose clients alone may reach its load balancer; none: anybody may."""
    field, given = "spec.loadBalancerSourceRanges", spec.load_balancer_source_ranges or []
    annotation = annotations.get(_RANGES_ANNOTATION)
    if not given and isinstance(annotation, str) and annotation.strip():
        field, given = f"metadata.annotations[{_RANGES_ANNOTATION}]", annotation.split(",")
    networks: dict[str, None] = {}
    for text in given:
        try:
            networks[str(ipaddress.ip_network(text.strip(), strict=False))] = None
        except ValueError:
            message = f"{field}: {text!r} is not a network such as 192.0.2.0/24; nobody is let in by it"
            problems.append(Problem(about, "BadSourceRange", message))
    if given and not networks:
        return (_NOBODY,)
    return tuple(sorted(networks))


def _affinity(about: str, spec: api.ServiceSpec, problems: list[Problem]) -> float | None:
    """Seconds for which a client IP keeps its pod."""
    if spec.session_affinity in (None, "", "None"):
        return None
    if spec.session_affinity != "ClientIP":
        message = f"spec.sessionAffinity: {spec.session_affinity!r} is not None or ClientIP; it is not heeded"
        problems.append(Problem(about, "BadSessionAffinity", message))
        return None
    config = (spec.session_affinity_config and spec.session_affinity_config.client_ip) or api.ClientIP()
    seconds = _DEFAULT_AFFINITY if config.timeout_seconds is None else config.timeout_seconds
    if not 0 < seconds <= _LONGEST_AFFINITY:
        message = (
            f"spec.sessionAffinityConfig.clientIP.timeoutSeconds: {seconds} is not 1 to {_LONGEST_AFFINITY}; "
            f"{_DEFAULT_AFFINITY} is used"
        )
        problems.append(Problem(about, "BadSessionAffinity", message))
        seconds = _DEFAULT_AFFINITY
    return float(seconds)


def _timestamp(moment: dt.datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _choice(choices: type[_E], field: str, value: str | None) -> _E | None:
    if not value:
        return None
    try:
        return choices(value)
    except ValueError:
        raise DecodeError(field, f"{value!r} is not one of {', '.join(choices)}") from None


def _cluster_ips(spec: api.ServiceSpec) -> tuple[str, ...]:
    """The cluster IPs of every family in canonical form, none for a headless Service."""
    given = [("spec.clusterIP", spec.cluster_ip or "")]
    given += [(f"spec.clusterIPs[{n}]", ip) for n, ip in enumerate(spec.cluster_ips or ())]
    ips: dict[str, None] = {}
    for field, ip in given:
        if ip == "None":
            return ()
        if ip:
            canonical = _ip(field, ip)
            if is_of_one_link(canonical):
                raise DecodeError(field, f"{canonical} is valid on one link alone: no Service can have it")
            ips[canonical] = None
    return tuple(ips)


def _ip(field: str, text: str) -> str:
    try:
        return canonical_ip(text)
    except ValueError as failure:
        raise DecodeError(field, str(failure)) from None


def _service_ports(
    key: ObjectKey, ports: list[api.ServicePortSpec] | None, problems: list[Problem]
) -> Iterator[_Port]:
    if not ports:
        raise DecodeError("spec.ports", "is empty: a Service needs at least one port")
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    for index, spec in enumerate(ports):
        field = f"spec.ports[{index}]"
        name, number, protocol = spec.name or "", spec.port, spec.protocol or Protocol.TCP
        if not name and len(ports) > 1:
            raise DecodeError(f"{field}.name", "is missing: each of several ports needs a name")
        if name and not PORT_NAME.fullmatch(name):
            raise DecodeError(f"{field}.name", f"{name!r} is not lower-case letters, digits and '-'")
        if number is None or not 0 < number <= MAX_PORT:
            raise DecodeError(
                f"{field}.port", "is missing" if number is None else f"{number} is not 1 to {MAX_PORT}"
            )
        if name in names or (protocol, number) in numbers:
            raise DecodeError(field, f"repeats the name {name!r} or {protocol} port {number}")
        names.add(name)
        numbers.add((protocol, number))
        full_name = ServicePortName(key.namespace, key.name, name)
        if protocol == "SCTP":
            message = (
                f"port {number}/SCTP is not served, only TCP and UDP are: remove the port, or label the "
                f"Service {api.PROXY_NAME_LABEL} for a proxy that serves it"
            )
            problems.append(Problem(str(full_name), "ProtocolNotSupported", message))
            continue
        known = _choice(Protocol, f"{field}.protocol", protocol) or Protocol.TCP
        yield _Port(full_name, known, number, _node_port(spec.node_port, full_name, problems))


def _health_check_port(about: str, spec: api.ServiceSpec, problems: list[Problem]) -> int | None:
    number = spec.health_check_node_port
    if number and not 0 < number <= MAX_PORT:
        message = (
            f"spec.healthCheckNodePort: {number} is not 1 to {MAX_PORT}; load balancers are not answered: "
            "correct it"
        )
        problems.append(Problem(about, "BadHealthCheckNodePort", message))
        return None
    return number or None


def _node_port(number: int | None, name: ServicePortName, problems: list[Problem]) -> int | None:
    if number and not 0 < number <= MAX_PORT:
        message = f"nodePort {number} is not 1 to {MAX_PORT}; it is left out: correct it"
        problems.append(Problem(str(name), "BadNodePort", message))
        return None
    return number or None
