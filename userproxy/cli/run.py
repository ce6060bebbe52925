"""`userproxy run`: the daemon, in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from userproxy import config
from userproxy.app import run as run_daemon
from userproxy.control.daemon import StartError, StopError
from userproxy.control.node_lock import NodeLockError
from userproxy.model.service import Path as TrafficPath
from userproxy.netfilter import NetfilterError
from userproxy.ops.admin import AdminSocketError

if TYPE_CHECKING:
    import enum

_PATH = click.Path(path_type=Path)


class _Workers(click.ParamType[Any]):
    """A number, or `auto`."""

    name = "workers"

    def convert(self, value: object, _param: click.Parameter | None, _ctx: click.Context | None) -> object:
        """Leave what is no number to the configuration, which says what is wrong with it."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value


def _choice(values: type[enum.StrEnum]) -> click.Choice[str]:
    return click.Choice([value.value for value in values])


@click.command()
@click.option("--manifests", type=_PATH, help="A file or directory of YAML or JSON, watched for changes.")
@click.option(
    "--kubeconfig",
    type=_PATH,
    help="How to reach the API server to follow. [default in a pod: its ServiceAccount]",
)
@click.option(
    "--service-proxy-name",
    help="Serve the Services labelled for this proxy. [default: those labelled for none]",
)
@click.option("--config", "config_file", type=_PATH, help="YAML with these settings; flags win over it.")
@click.option("--node-name", help="This node's name in Node and EndpointSlice objects. [default: host name]")
@click.option(
    "--host-ip", help="The address of the listeners. [default: the node's primary address, as it changes]"
)
@click.option("--mode", type=_choice(TrafficPath), help="The path of Services that choose none.")
@click.option("--port-range", help=f"The listeners' host ports. [default: {config.DEFAULT_PORT_RANGE}]")
@click.option(
    "--admin-socket",
    type=_PATH,
    envvar="USERPROXY_ADMIN_SOCKET",
    help=f"Where `userproxy connections` asks. [default: {config.DEFAULT_ADMIN_SOCKET}]",
)
@click.option(
    "--state-dir",
    type=_PATH,
    help=f"Where host ports are remembered over restarts. [default: {config.DEFAULT_STATE_DIR}]",
)
@click.option(
    "--drain-seconds", type=float, help="How long connections may go on after SIGTERM. [default: 30]"
)
@click.option(
    "--linger-seconds",
    type=float,
    help="How long a half-closed connection may carry no byte. [default: 60]",
)
@click.option(
    "--orphan-seconds",
    type=float,
    help="How long workers go on when this process is gone. [default: no limit]",
)
@click.option(
    "--workers",
    type=_Workers(),
    metavar="N|auto",
    help="How many processes relay; `auto`: one a processor. [default: 1]",
)
@click.option(
    "--healthz-bind-address",
    metavar="IP:PORT",
    help="Where to answer /healthz and /livez; :PORT means every address, '' nowhere. "
    f"[default: {config.DEFAULT_HEALTHZ_ADDRESS}]",
)
@click.option(
    "--metrics-bind-address",
    metavar="IP:PORT",
    help="Where to answer /metrics; :PORT means every address, '' nowhere. "
    f"[default: {config.DEFAULT_METRICS_ADDRESS}]",
)
@click.option("--log-format", type=_choice(config.LogFormat), help="[default: console]")
@click.option("--log-level", type=_choice(config.LogLevel), help="[default: info]")
def run(config_file: Path | None, **flags: Any) -> None:  # noqa: ANN401 - as many types as there are flags
    """Run the daemon, in the foreground.

    SIGTERM stops it: no new connections, then those that live get their time, then every trace is removed.
    SIGHUP has it start anew, with the program and the configuration as they are then, and no client notices.
    """

    def load() -> config.Config:
        return config.load(flags, config_file)

    try:
        if run_daemon(load(), load):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    except config.ConfigError as error:
        raise click.UsageError(str(error)) from None
    except (StartError, StopError, NodeLockError, AdminSocketError, NetfilterError) as error:
        raise click.ClickException(str(error)) from None
