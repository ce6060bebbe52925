"""What may be set: each setting is declared here, once, with its type, its default and what it does.

The flags of `userproxy run`, the keys of the configuration file and the reference are made from that.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import socket
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec

from userproxy.model.address import MAX_PORT, Address, IpFamily, canonical_ip, family_of
from userproxy.model.heartbeat import MOST_WORKERS
from userproxy.model.service import Path as TrafficPath

IpNetwork = IPv4Network | IPv6Network
DEFAULT_PORT_RANGE = "10400-18399"


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


class OnStop(enum.StrEnum):
    """What becomes of the rules when the daemon stops."""

    KEEP = "keep"
    REMOVE = "remove"


def _help(text: str, *, metavar: str = "", default: str = "", envvar: str = "") -> msgspec.Meta:
    """What a setting does, in a sentence.

    Args:
        text: the sentence.
        metavar: stands for its value in `--help`, where the type does not say enough.
        default: in words, where the default is found out at run time, or is nothing.
        envvar: a variable of the environment that sets it too.
    """
    return msgspec.Meta(description=text, extra={"metavar": metavar, "default": default, "envvar": envvar})


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What may be set, in the file by these names in kebab-case, or by the flag of the same name."""

    manifests: Annotated[
        Path | None,
        _help("A file or directory of YAML or JSON to take Services from, watched.", default="an API server"),
    ] = None
    kubeconfig: Annotated[
        Path | None,
        _help(
            "How to reach the API server to take Services from.",
            default="in a pod, its ServiceAccount",
        ),
    ] = None
    service_proxy_name: Annotated[
        str,
        _help(
            "Serve the Services whose label service.kubernetes.io/service-proxy-name has this value.",
            metavar="NAME",
            default="those without that label",
        ),
    ] = ""
    node_name: Annotated[
        str,
        _help("This node's name in Node and EndpointSlice objects.", metavar="NAME", default="the host name"),
    ] = ""
    host_ip: Annotated[
        str,
        _help(
            "The address of the listeners, one for each family.",
            metavar="IP,...",
            default="the node's primary addresses, as they change",
        ),
    ] = ""
    nodeport_addresses: Annotated[
        str,
        _help(
            "The node's addresses at which node ports answer: `primary`, or networks.",
            metavar="primary|CIDR,...",
        ),
    ] = "primary"
    cluster_cidr: Annotated[
        str,
        _help(
            "The networks of pods: what comes from there is not from outside the cluster.",
            metavar="CIDR,...",
            default="the Node's podCIDRs",
        ),
    ] = ""
    cluster_ips_from_outside: Annotated[
        bool,
        _help(
            "Whether cluster IPs can be reached from outside the node and its pods.",
            metavar="true|false",
            default="false",
        ),
    ] = False
    external_ips: Annotated[
        bool,
        _help(
            "Whether Services answer at their `externalIPs`.",
            metavar="true|false",
            default="true",
        ),
    ] = True
    mode: Annotated[TrafficPath, _help("The path of Services that choose none.")] = (
        TrafficPath.REDIRECT_TO_HOST
    )
    port_range: Annotated[str, _help("The listeners' host ports.", metavar="FIRST-LAST")] = DEFAULT_PORT_RANGE
    admin_socket: Annotated[
        Path, _help("Where `userproxy connections` asks.", envvar="USERPROXY_ADMIN_SOCKET")
    ] = Path("/run/userproxy/admin.sock")
    state_dir: Annotated[Path, _help("Where host ports are remembered over restarts.")] = Path(
        "/var/lib/userproxy"
    )
    drain_seconds: Annotated[
        float, _help("How long connections may go on after SIGTERM.", metavar="SECONDS")
    ] = 30.0
    on_stop: Annotated[
        OnStop,
        _help(
            "After SIGTERM: `keep` the rules, and new connections go straight to the pods; or refuse these, "
            "and `remove` the rules."
        ),
    ] = OnStop.KEEP
    fall_open: Annotated[
        bool,
        _help(
            "Whether new connections go straight to the pods while no worker accepts them; a Service may say "
            "otherwise.",
            metavar="true|false",
            default="true",
        ),
    ] = True
    linger_seconds: Annotated[
        float,
        _help("How long a half-closed connection may carry no byte before it ends.", metavar="SECONDS"),
    ] = 60.0
    udp_idle_seconds: Annotated[
        float,
        _help(
            "How long a UDP client's session may carry nothing before it ends; a Service may say otherwise.",
            metavar="SECONDS",
        ),
    ] = 30.0
    udp_sessions: Annotated[
        int | None,
        _help(
            "How many UDP clients a worker serves at once; beyond that the least recently active gives way.",
            metavar="N",
            default="as many as a quarter of the files that may be open, and 32768 at most",
        ),
    ] = None
    orphan_seconds: Annotated[
        float | None,
        _help("How long workers go on when the daemon is gone.", metavar="SECONDS", default="no limit"),
    ] = None
    workers: Annotated[
        int | Literal["auto"],
        _help("How many processes relay; `auto`: one a processor.", metavar="N|auto"),
    ] = 1
    take_over: Annotated[
        bool,
        _help(
            "Whether to take the node over from a daemon that has it; otherwise it is an error that one has.",
            metavar="true|false",
            default="false",
        ),
    ] = False
    ready_file: Annotated[
        Path | None,
        _help("A file that is there while this daemon serves the node, for probes.", default="no file"),
    ] = None
    healthz_bind_address: Annotated[
        str,
        _help(
            "Where to answer /healthz and /livez; :PORT means every address, '' nowhere.",
            metavar="IP:PORT",
        ),
    ] = ":10256"
    metrics_bind_address: Annotated[
        str,
        _help("Where to answer /metrics; :PORT means every address, '' nowhere.", metavar="IP:PORT"),
    ] = "127.0.0.1:10249"
    log_format: Annotated[LogFormat, _help("How the lines of the log on stderr look.")] = LogFormat.CONSOLE
    log_level: Annotated[LogLevel, _help("From which severity on there are log lines.")] = LogLevel.INFO


class Config(Settings, frozen=True, kw_only=True):
    """Settings in which everything has been filled in and checked.

    Attributes:
        host_ip_follows: the families of which nobody has named an address: theirs is the node's primary one,
            if there is any, and goes with it.
    """

    host_ip_follows: tuple[IpFamily, ...] = ()

    @property
    def host_ips(self) -> tuple[str, ...]:
        """The addresses of the listeners when the daemon starts, at most one of each family."""
        return parse_host_ips(self.host_ip)

    @property
    def worker_count(self) -> int:
        """How many workers that is here."""
        if self.workers != "auto":
            return self.workers
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)

    @property
    def ports(self) -> range:
        """The port range as numbers."""
        return parse_port_range(self.port_range)

    @property
    def node_port_networks(self) -> tuple[IpNetwork, ...]:
        """The networks in which the node's addresses answer node ports; none: its host IPs alone."""
        return () if self.nodeport_addresses == "primary" else parse_networks(self.nodeport_addresses)

    @property
    def pod_networks(self) -> tuple[IpNetwork, ...]:
        """The networks of pods, as far as they are set."""
        return parse_networks(self.cluster_cidr)

    @property
    def healthz_address(self) -> Address | None:
        """Where to answer probes, if anywhere."""
        return parse_bind_address(self.healthz_bind_address) if self.healthz_bind_address else None

    @property
    def metrics_address(self) -> Address | None:
        """Where to answer Prometheus, if anywhere."""
        return parse_bind_address(self.metrics_bind_address) if self.metrics_bind_address else None


class Setting(NamedTuple):
    """One of the settings, for those who make flags or text of it.

    Attributes:
        field: its name in `Settings`.
        kinds: the types that it may have, None left out.
        help: what it does, in a sentence.
        default: as it is written, or in words.
        metavar: stands for its value; empty where the type says enough.
        envvar: a variable of the environment that sets it too, or empty.
    """

    field: str
    kinds: tuple[Any, ...]
    help: str
    default: str
    metavar: str
    envvar: str

    @property
    def key(self) -> str:
        """Its name in the file; with `--` before it, the flag."""
        return self.field.replace("_", "-")


def declared() -> tuple[Setting, ...]:
    """All settings, in the order of their declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        _setting(field.name, field.default, hints[field.name]) for field in msgspec.structs.fields(Settings)
    )


def _setting(name: str, default: object, hint: Any) -> Setting:  # noqa: ANN401 - a type, annotated
    kind, meta = get_args(hint)
    kinds = tuple(each for each in get_args(kind) or (kind,) if each is not type(None))
    extra = meta.extra
    return Setting(
        field=name,
        kinds=kinds,
        help=meta.description,
        default=extra["default"] or (f"{default:g}" if isinstance(default, float) else str(default)),
        metavar=extra["metavar"],
        envvar=extra["envvar"],
    )


def parse_port_range(text: str) -> range:
    """Read `10400-18399`.

    Raises:
        ValueError: it is no range of ports.
    """
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= MAX_PORT):
        raise ValueError(f"port-range: {text!r} is not FIRST-LAST, such as {DEFAULT_PORT_RANGE}")
    return range(int(first), int(last) + 1)


def parse_host_ips(text: str) -> tuple[str, ...]:
    """Read `10.100.0.2,fd00::2`, at most one of each family, in the order of the families.

    Raises:
        ValueError: one is no address, or none that others can reach; or there are two of a family.
    """
    found: dict[IpFamily, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ip = canonical_ip(part)
        if ipaddress.ip_address(ip).is_link_local:
            raise ValueError(f"{ip} is valid on one link alone: name another address")
        family = family_of(ip)
        if family in found:
            raise ValueError(f"{found[family]} and {ip} are both {family}: name one address of each family")
        found[family] = ip
    return tuple(found[family] for family in IpFamily if family in found)


def parse_networks(text: str) -> tuple[IpNetwork, ...]:
    """Read `10.0.0.0/14,fd00::/8`.

    Raises:
        ValueError: one of them is no network.
    """
    found: list[IpNetwork] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise ValueError(f"{part!r} is not a network such as 10.0.0.0/14") from None
    return tuple(found)


def parse_bind_address(text: str) -> Address:
    """Read `0.0.0.0:10256`, or `:10256`: every address, of both families where there are both.

    Raises:
        ValueError: it is no address with a port.
    """
    if text.startswith(":") and text[1:].isdecimal():
        text = f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}{text}"  # noqa: S104 - as asked for
    return Address.parse(text)
