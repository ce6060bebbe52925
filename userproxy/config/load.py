"""The configuration is put together from flags and a file, and checked."""

from __future__ import annotations

import difflib
import ipaddress
import math
import socket
from pathlib import Path
from typing import Any

import msgspec
import yaml

from userproxy.config.settings import (
    Config,
    Settings,
    parse_bind_address,
    parse_host_ips,
    parse_networks,
    parse_port_range,
)
from userproxy.model.address import THE_WORLD, IpFamily, family_of
from userproxy.model.heartbeat import MOST_WORKERS

_IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC = 72, 2
"""Of RFC 5014: no temporary address, which is another one tomorrow."""
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ConfigError(ValueError):
    """The configuration is wrong. One line: where, what, and the remedy."""


def load(flags: dict[str, Any], file: Path | None) -> Config:
    """Put the configuration together: flags win over the file, the file over the defaults.

    Args:
        flags: by field name, those that were given.
        file: YAML with the fields in kebab-case, or None.

    Raises:
        ConfigError: something is wrong with it.
    """
    chosen = _read(file) if file else {}
    chosen |= {name.replace("_", "-"): value for name, value in flags.items() if value is not None}
    if isinstance(workers := chosen.get("workers"), str):
        chosen["workers"] = workers.lower()
    source = f"{file}: " if file else ""
    try:
        settings = msgspec.convert(chosen, Settings, dec_hook=_decode)
        return _complete(settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{source}{error}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: does not exist: create it, or leave --config out") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{file}: cannot be read as YAML: {detail}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must be a mapping of settings, such as `mode: redirect-to-host`")
    known = [field.encode_name for field in msgspec.structs.fields(Settings)]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key).lower().replace("_", "-"), known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "`userproxy run --help` lists them"
            raise ConfigError(f"{file}: there is no setting {key!s:.100}: {remedy}")
    return content


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise ValueError(f"{value!r} is not a {kind.__name__.lower()}")


def _complete(settings: Settings) -> Config:
    parse_port_range(settings.port_range)
    if not 0 <= settings.drain_seconds < math.inf:
        raise ValueError(f"drain-seconds: {settings.drain_seconds} is not a number of seconds from 0 on")
    if not 0 < settings.linger_seconds < math.inf:
        raise ValueError(f"linger-seconds: {settings.linger_seconds} is not a number of seconds above 0")
    if not 1 <= settings.udp_idle_seconds < math.inf:
        raise ValueError(f"udp-idle-seconds: {settings.udp_idle_seconds} is not seconds, from 1 on")
    if settings.udp_sessions is not None and settings.udp_sessions < 1:
        raise ValueError(f"udp-sessions: {settings.udp_sessions} is not a number from 1 on")
    if settings.orphan_seconds is not None and settings.orphan_seconds < 0:
        raise ValueError(f"orphan-seconds: {settings.orphan_seconds} is below 0")
    if settings.workers != "auto" and not 1 <= settings.workers <= MOST_WORKERS:
        raise ValueError(f"workers: {settings.workers} is not `auto` or a number from 1 to {MOST_WORKERS}")
    _check_addresses(settings)
    _check_networks(settings)
    _check_source(settings)
    named = _host_ips(settings.host_ip)
    following = tuple(family for family in IpFamily if family not in map(family_of, named))
    host_ips = [*named, *filter(None, map(primary_address, following))]
    if not host_ips:
        raise ValueError(
            "host-ip: this node has no default route to take its primary address from: "
            "name the address with --host-ip"
        )
    filled_in = {
        "host_ip": ",".join(host_ips),
        "host_ip_follows": following,
        "node_name": settings.node_name or socket.gethostname().lower(),
    }
    return Config(**{**msgspec.structs.asdict(settings), **filled_in})


def _check_addresses(settings: Settings) -> None:
    for name in ("healthz_bind_address", "metrics_bind_address"):
        if address := getattr(settings, name):
            try:
                parse_bind_address(address)
            except ValueError as error:
                raise ValueError(f"{name.replace('_', '-')}: {error}") from None


def _check_networks(settings: Settings) -> None:
    if settings.nodeport_addresses != "primary" and not settings.nodeport_addresses.strip():
        raise ValueError("nodeport-addresses: is empty: `primary`, or networks such as 10.100.0.0/24")
    chosen = {"cluster-cidr": settings.cluster_cidr}
    if settings.nodeport_addresses != "primary":
        chosen["nodeport-addresses"] = settings.nodeport_addresses
    for name, text in chosen.items():
        try:
            parse_networks(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _check_source(settings: Settings) -> None:
    if settings.manifests and settings.kubeconfig:
        raise ValueError("manifests and kubeconfig: Services come from one of the two, leave the other out")
    if not (settings.manifests or settings.kubeconfig or _SERVICE_ACCOUNT.exists()):
        raise ValueError(
            "nothing to take Services from: name a file or directory with --manifests PATH, or an API server "
            "with --kubeconfig PATH, or run as a pod with a ServiceAccount"
        )


def _host_ips(text: str) -> tuple[str, ...]:
    try:
        host_ips = parse_host_ips(text)
    except ValueError as error:
        raise ValueError(f"host-ip: {error}") from None
    for host_ip in host_ips:
        if not is_own_address(host_ip):
            raise ValueError(
                f"host-ip: {host_ip} is not an address of this node: choose one that `ip address` shows"
            )
    return host_ips


def primary_address(family: IpFamily) -> str:
    """The address of a family that the kernel would speak to the world from; empty if there is none."""
    ip = _source_address(THE_WORLD[family])
    return "" if ip and ipaddress.ip_address(ip).is_link_local else ip


def is_own_address(ip: str) -> bool:
    """Whether an address is one of this node's now."""
    return _source_address(ip) == ip  # to an address of its own, a node speaks from it


def _source_address(ip: str) -> str:
    """From where the kernel would speak to an address; no packet is sent."""
    is_ipv6 = family_of(ip) is IpFamily.IPV6
    try:
        with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            if is_ipv6:
                probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC)
            probe.connect((ip, 9))
            source: str = probe.getsockname()[0]
    except OSError:  # no way there, or no such family at all
        return ""
    return source
