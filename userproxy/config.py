"""The configuration: one frozen, validated struct, from a file and from flags."""

from __future__ import annotations

import enum
import math
import os
import socket
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from userproxy.model.address import MAX_PORT, Address, canonical_ip
from userproxy.model.service import Path as TrafficPath

DEFAULT_ADMIN_SOCKET = Path("/run/userproxy/admin.sock")
DEFAULT_STATE_DIR = Path("/var/lib/userproxy")
DEFAULT_PORT_RANGE = "10400-18399"
DEFAULT_HEALTHZ_ADDRESS = "0.0.0.0:10256"
DEFAULT_METRICS_ADDRESS = "127.0.0.1:10249"

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ConfigError(ValueError):
    """The configuration is wrong. One line: where, what, and the remedy."""


class LogFormat(enum.StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(enum.StrEnum):
    """From which severity on there are log lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What may be set, in the file by these names in kebab-case, or by the flag of the same name.

    Attributes:
        manifests: a file or directory of YAML or JSON to take Services from.
        kubeconfig: how to reach the API server to take Services from. Without this and `manifests`, that of
            the cluster that this process is a pod of.
        service_proxy_name: serve the Services labelled `service.kubernetes.io/service-proxy-name` with this
            name; by default, those without that label.
        node_name: this node's name in the Node and EndpointSlice objects; the host name by default.
        host_ip: of the listeners; by default the node's primary address, also as that changes.
        mode: the path of Services that do not choose one.
        port_range: of the listeners' host ports, `FIRST-LAST`.
        admin_socket: where `userproxy connections` and its siblings ask.
        state_dir: where host ports are remembered over restarts.
        drain_seconds: how long connections may go on after SIGTERM.
        linger_seconds: how long a half-closed connection may carry no byte before it is given up.
        orphan_seconds: how long workers go on when this process is gone; without limit by default.
        workers: how many processes relay; `auto` for one a processor.
        healthz_bind_address: of `/healthz` and `/livez`, `IP:PORT`, or `:PORT` for every IPv4 address; empty
            for none.
        metrics_bind_address: of `/metrics`, likewise.
        log_format: of the log on stderr.
        log_level: of the log on stderr.
    """

    manifests: Path | None = None
    kubeconfig: Path | None = None
    service_proxy_name: str = ""
    node_name: str = ""
    host_ip: str = ""
    mode: TrafficPath = TrafficPath.REDIRECT_TO_HOST
    port_range: str = DEFAULT_PORT_RANGE
    admin_socket: Path = DEFAULT_ADMIN_SOCKET
    state_dir: Path = DEFAULT_STATE_DIR
    drain_seconds: float = 30.0
    linger_seconds: float = 60.0
    orphan_seconds: float | None = None
    workers: int | Literal["auto"] = 1
    healthz_bind_address: str = DEFAULT_HEALTHZ_ADDRESS
    metrics_bind_address: str = DEFAULT_METRICS_ADDRESS
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: LogLevel = LogLevel.INFO


class Config(Settings, frozen=True, kw_only=True):
    """Settings in which everything has been filled in and checked.

    Attributes:
        host_ip_follows: nobody has named `host_ip`: it is the node's primary address, and goes with it.
    """

    host_ip_follows: bool = False

    @property
    def worker_count(self) -> int:
        """How many workers that is here."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @property
    def ports(self) -> range:
        """The port range as numbers."""
        return parse_port_range(self.port_range)

    @property
    def healthz_address(self) -> Address | None:
        """Where to answer probes, if anywhere."""
        return parse_bind_address(self.healthz_bind_address) if self.healthz_bind_address else None

    @property
    def metrics_address(self) -> Address | None:
        """Where to answer Prometheus, if anywhere."""
        return parse_bind_address(self.metrics_bind_address) if self.metrics_bind_address else None


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


def parse_port_range(text: str) -> range:
    """Read `10400-18399`.

    Raises:
        ValueError: it is no range of ports.
    """
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= MAX_PORT):
        raise ValueError(f"port-range: {text!r} is not FIRST-LAST, such as {DEFAULT_PORT_RANGE}")
    return range(int(first), int(last) + 1)


def parse_bind_address(text: str) -> Address:
    """Read `0.0.0.0:10256`, or `:10256`, which means the same, as in the flags of kube-proxy.

    Raises:
        ValueError: it is no address with a port.
    """
    if text.startswith(":") and text[1:].isdecimal():
        text = f"0.0.0.0{text}"  # noqa: S104 - as asked for
    return Address.parse(text)


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
    if settings.orphan_seconds is not None and settings.orphan_seconds < 0:
        raise ValueError(f"orphan-seconds: {settings.orphan_seconds} is below 0")
    if settings.workers != "auto" and settings.workers < 1:
        raise ValueError(f"workers: {settings.workers} is not `auto` or a number from 1 on")
    _check_addresses(settings)
    _check_source(settings)
    host_ip = _host_ip(settings.host_ip) if settings.host_ip else primary_address()
    if not host_ip:
        raise ValueError(
            "host-ip: this node has no default route to take its primary address from: "
            "name the address with --host-ip"
        )
    filled_in = {
        "host_ip": host_ip,
        "host_ip_follows": not settings.host_ip,
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


def _check_source(settings: Settings) -> None:
    if settings.manifests and settings.kubeconfig:
        raise ValueError("manifests and kubeconfig: Services come from one of the two, leave the other out")
    if not (settings.manifests or settings.kubeconfig or _SERVICE_ACCOUNT.exists()):
        raise ValueError(
            "nothing to take Services from: name a file or directory with --manifests PATH, or an API server "
            "with --kubeconfig PATH, or run as a pod with a ServiceAccount"
        )


def _host_ip(text: str) -> str:
    try:
        host_ip = canonical_ip(text)
    except ValueError as error:
        raise ValueError(f"host-ip: {error}") from None
    if Address(host_ip, 0).is_ipv6:
        raise ValueError(f"host-ip: {host_ip} is an IPv6 address; only IPv4 Services can be captured yet")
    if not is_own_address(host_ip):
        raise ValueError(
            f"host-ip: {host_ip} is not an address of this node: choose one that `ip address` shows"
        )
    return host_ip


def primary_address() -> str:
    """The source address that the kernel would take to leave this node; empty if there is no way out."""
    return _source_address("192.0.2.1")  # TEST-NET-1 (RFC 5737)


def is_own_address(ip: str) -> bool:
    """Whether an IPv4 address is one of this node's now."""
    return _source_address(ip) == ip  # to an address of its own, a node speaks from it


def _source_address(ip: str) -> str:
    """From where the kernel would speak to an address; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 9))
        except OSError:
            return ""
        source: str = probe.getsockname()[0]
        return source
