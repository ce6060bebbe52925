"""`userproxy cleanup`: the kernel as it was before the first start."""

from __future__ import annotations

import click

from userproxy.cli.commands import Command
from userproxy.cli.daemon import Environment, pass_environment
from userproxy.control.node_lock import NodeLockError
from userproxy.netfilter import NetfilterError


@click.command(
    cls=Command, examples=(("userproxy cleanup", "after a crash, or before userproxy is uninstalled"),)
)
@pass_environment
def cleanup(environment: Environment, /) -> None:
    """End the workers that a daemon has left behind, and remove every trace from this node's kernel.

    Refuses while a daemon runs here.
    """
    try:
        with environment.node_lock():  # held meanwhile, so that no daemon starts under our hands
            for pid in environment.end_orphans():
                click.echo(f"ended worker {pid}")
            found = environment.remove_traces()
    except (NodeLockError, NetfilterError) as error:
        raise click.ClickException(str(error)) from None
    except PermissionError:
        raise click.ClickException("may not change the kernel's rules: run as root") from None
    for line in found:
        click.echo(f"removed {line}")
    click.echo("this node is clean: no table, route or routing rule of userproxy is left")
