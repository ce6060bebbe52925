"""`userproxy run`: the daemon, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from userproxy.app import run as run_daemon
from userproxy.cli.commands import Command
from userproxy.cli.settings import Mistakes, settings_options
from userproxy.config import ConfigError
from userproxy.control.daemon import StartError
from userproxy.control.node_lock import NodeLockError
from userproxy.control.stopping import StopError
from userproxy.netfilter import NetfilterError
from userproxy.ops.admin.socket_file import AdminSocketError

if TYPE_CHECKING:
    from userproxy.cli.settings import Chosen


@click.command(
    cls=Command,
    examples=(
        ("userproxy run --manifests /etc/userproxy/services", "from files"),
        ("userproxy run --kubeconfig /etc/userproxy/kubeconfig --node-name host1", "from an API server"),
        (
            "userproxy run --config /var/lib/kube-proxy/config.conf --hostname-override host1",
            "as kube-proxy is started",
        ),
    ),
)
@settings_options
def run(*, chosen: Chosen) -> None:
    """Run the daemon, in the foreground.

    SIGTERM stops it: no new connections, then those that live get their time, then every trace is removed.
    SIGHUP has it start anew, with the program and the configuration as they are then, and no client notices.

    kube-proxy's flags and its configuration file are accepted too; docs/configuration.md says what they mean.
    """
    try:
        if run_daemon(chosen.load(), chosen.load):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    except ConfigError as error:
        raise Mistakes(error) from None
    except (StartError, StopError, NodeLockError, AdminSocketError, NetfilterError) as error:
        raise click.ClickException(str(error)) from None
