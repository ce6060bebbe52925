"""What may be set: each setting is declared here, once, with its type, its default and what it does.

The flags of `userproxy run`, the keys of the configuration file and the reference are made from that.
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec

from userproxy.config.parse import (
    DEFAULT_PORT_RANGE,
    PRIMARY,
    IpNetwork,
    parse_bind_address,
    parse_host_ips,
    parse_networks,
    parse_node_ports,
    parse_port_range,
)
from userproxy.model.address import Address, IpFamily
from userproxy.model.heartbeat import MOST_WORKERS
from userproxy.model.service import Path as TrafficPath

GROUPS = {
    "manifests": "Where Services come from",
    "node_name": "The node and its network",
    "mode": "How Services are served",
    "drain_seconds": "Starting, stopping and failing",
    "linger_seconds": "Times and limits",
    "admin_socket": "What the daemon keeps and tells",
}
"""By the field that a group of settings begins with, its name."""


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


class AccessLog(enum.StrEnum):
    """Which connections get a line in the access log when they end."""

    ALL = "all"
    ERRORS = "errors"
    OFF = "off"


def _help(text: str, *, metavar: str = "", default: str = "", envvar: str = "") -> msgspec.Meta:
    """What a setting does, in a sentence.

    Args:
        text: the sentence.
        metavar: stands for its value in `--help`, where the type does not say enough.
        default: in words, where the default is found out at run time, or is nothing.
        envvar: a variable of the environment that sets it too.
    """
    return msgspec.Meta(description=text, extra={"metavar": metavar, "default": default, "envvar": envvar})


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
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
            "The node's addresses at which node ports answer: `primary`, `all`, `localhost`, or networks.",
            metavar="primary|all|CIDR,...",
        ),
    ] = PRIMARY
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
    workers: Annotated[
        int | Literal["auto"],
        _help("How many processes relay; `auto`: one a processor.", metavar="N|auto"),
    ] = 1
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
    take_over: Annotated[
        bool,
        _help(
            "Whether to take the node over from a daemon that has it; otherwise it is an error that one has.",
            metavar="true|false",
            default="false",
        ),
    ] = False
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
    admin_socket: Annotated[
        Path, _help("Where `userproxy connections` asks.", envvar="USERPROXY_ADMIN_SOCKET")
    ] = Path("/run/userproxy/admin.sock")
    state_dir: Annotated[Path, _help("Where host ports are remembered over restarts.")] = Path(
        "/var/lib/userproxy"
    )
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
    metrics_per_service: Annotated[
        int,
        _help(
            "Of how many Service ports /metrics has series of their own: those with the most connections.",
            metavar="N",
        ),
    ] = 0
    recorded_connections: Annotated[
        int,
        _help(
            "How many connections that are over are remembered, for `connections --ended`, and so many "
            "steered ones beside them; 0: none.",
            metavar="N",
        ),
    ] = 10_000
    access_log: Annotated[
        AccessLog,
        _help(
            "Which connections get a line in the access log when they end: all, those that failed, or none."
        ),
    ] = AccessLog.OFF
    access_log_file: Annotated[
        Path | None,
        _help("Where the access log goes; the file may be rotated.", default="standard error"),
    ] = None
    log_format: Annotated[LogFormat, _help("How the lines of the log on stderr look.")] = LogFormat.CONSOLE
    log_level: Annotated[LogLevel, _help("From which severity on there are log lines.")] = LogLevel.INFO


class Config(Settings, frozen=True, kw_only=True):
    """Settings in which everything has been filled in and checked.

    Attributes:
        host_ip_follows: the families of which nobody has named an address: theirs is the node's primary one,
            if there is any, and goes with it.
        origins: by field, where its value comes from: `default`, `this node`, a flag, a variable of the
            environment, or the place in a file.
        warnings: what an operator must know of it.
    """

    host_ip_follows: tuple[IpFamily, ...] = ()
    origins: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()

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
        return parse_node_ports(self.nodeport_addresses)

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
        type: as it is declared.
        kinds: the types that it may have, None left out.
        help: what it does, in a sentence.
        default: as it is written, or in words.
        metavar: stands for its value; empty where the type says enough.
        envvar: a variable of the environment that sets it too, or empty.
        group: of `GROUPS`, in which it is told.
    """

    field: str
    type: Any
    kinds: tuple[Any, ...]
    help: str
    default: str
    metavar: str
    envvar: str
    group: str

    @property
    def key(self) -> str:
        """Its name in the file; with `--` before it, the flag."""
        return self.field.replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether it is a list: with commas, or in the file a list of texts."""
        return self.metavar.endswith(",...")


@functools.cache
def declared() -> tuple[Setting, ...]:
    """All settings, in the order of their declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    found: list[Setting] = []
    group = ""
    for field in msgspec.structs.fields(Settings):
        group = GROUPS.get(field.name, group)
        found.append(_setting(field.name, field.default, hints[field.name], group))
    return tuple(found)


def _setting(name: str, default: object, hint: Any, group: str) -> Setting:  # noqa: ANN401 - a type, annotated
    kind, meta = get_args(hint)
    kinds = tuple(each for each in get_args(kind) or (kind,) if each is not type(None))
    extra = meta.extra
    return Setting(
        field=name,
        type=kind,
        kinds=kinds,
        help=meta.description,
        default=extra["default"] or (f"{default:g}" if isinstance(default, float) else str(default)),
        metavar=extra["metavar"],
        envvar=extra["envvar"],
        group=group,
    )
