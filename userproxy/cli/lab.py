"""`userproxy lab run|up|down|exec`: the reference deployment in network namespaces."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import click

from userproxy.cli.commands import Group
from userproxy.lab.deployment import DEFAULT_NAME, Lab
from userproxy.lab.network import LabError, preflight
from userproxy.lab.processes import Interrupted, interruptible
from userproxy.lab.topology import REFERENCE_WITH_DNS
from userproxy.model.service import Path as Mode

if TYPE_CHECKING:
    from collections.abc import Generator

NAME_OPTION = click.option(
    "--name",
    default=DEFAULT_NAME,
    envvar="USERPROXY_LAB",
    show_default=True,
    show_envvar=True,
    help="Which lab: labs of different names live side by side.",
)
MODE_OPTION = click.option(
    "--mode",
    default=Mode.REDIRECT_TO_HOST.value,
    type=click.Choice([each.value for each in Mode]),
    show_default=True,
    help="How the bytes of its Services travel: relayed by userproxy, or by the kernel alone.",
)


@click.group(cls=Group)
def lab() -> None:
    """The reference deployment in network namespaces: two hosts, their pods, a Service, cluster DNS.

    Nothing outside these namespaces is changed. Needs root.
    """


@lab.command(examples=(("userproxy lab run", "one request, followed hop by hop"),))
@NAME_OPTION
@MODE_OPTION
@click.option("--step", is_flag=True, help="Wait for Enter before each step.")
@click.option("--kill-a-pod", is_flag=True, help="Have one of the pods die while a client asks on.")
def run(name: str, mode: str, step: bool, kill_a_pod: bool) -> None:
    """Show what userproxy does to one request, hop by hop, and leave the machine as it was."""
    # Brings rich and pyroute2, which are slow to import.
    from userproxy.lab.story.story import Staging, tell  # noqa: PLC0415

    with _told_in_one_line(), interruptible():
        held = tell(name, Staging(Mode(mode), kill_a_pod, _wait_for_enter if step else None))
    if not held:
        raise click.ClickException("not everything that was shown is so: see the lines marked with a cross")


@lab.command(examples=(("userproxy lab up", "two hosts with their pods, to play with"),))
@NAME_OPTION
@MODE_OPTION
@click.option("--no-daemons", is_flag=True, help="Only the pods and the network; start userproxy yourself.")
def up(name: str, mode: str, no_daemons: bool) -> None:
    """Bring the lab up, leave it running, and tell how to use it."""
    made = _lab(name, daemons=not no_daemons, tied=False, mode=Mode(mode))
    with _told_in_one_line(), interruptible():
        made.up()
    option = "" if name == DEFAULT_NAME else f" --name {name}"
    service = made.deployment.services[0]
    client = next(pod for pod in made.deployment.pods if pod.port is None)
    host = made.deployment.host_of(client)
    click.echo(
        f"Lab {name} is up: {', '.join(made.deployment.members)}. What it keeps is in {made.directory}.\n\n"
        f"  userproxy lab exec{option} {client.name} -- curl -s http://{service.name}\n"
        f"  userproxy lab exec{option} {host.name} -- userproxy connections\n"
        f"  export USERPROXY_ADMIN_SOCKET={made.admin_socket(host.name)}; userproxy services\n"
        f"  userproxy lab down{option}"
    )


@lab.command(examples=(("userproxy lab down", "nothing is left of it"),))
@NAME_OPTION
def down(name: str) -> None:
    """Take the lab down, also one that crashed or was half made. Does nothing if there is none."""
    with _told_in_one_line():
        found = _lab(name)
        if found.directory.exists():
            preflight()
        found.down()


@lab.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=(
        ("userproxy lab exec client -- curl -s http://server-service", "as a pod"),
        ("userproxy lab exec host1 -- userproxy connections", "as a host"),
    ),
)
@NAME_OPTION
@click.argument("member", metavar="NODE")
@click.argument("command", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, member: str, command: tuple[str, ...]) -> NoReturn:
    """Run CMD in the namespace of NODE: a pod, a host or the gateway.

    Pods are client, server1, server2, dns1 and dns2; they know the Services by their names. Hosts are host1
    and host2. The exit code of CMD becomes ours. On a host, USERPROXY_ADMIN_SOCKET names the daemon there:
    `userproxy lab exec host1 -- userproxy connections`.
    """
    with _told_in_one_line():
        found = _lab(name)
        argv = found.command(member, *(command[1:] if command[0] == "--" else command))
        if found.directory.exists():
            preflight()  # or a lab that others may not look into would pass for one that is not up
        if not found.is_up():
            raise LabError(f"lab {name} is not up: `userproxy lab up` brings it up")
    sys.stdout.flush()
    os.execvpe(argv[0], argv, found.environment(member))  # noqa: S606 - it becomes the command, signals and all


def _wait_for_enter() -> None:
    click.echo(click.style("    Enter goes on, Ctrl-C ends it ", dim=True), nl=False, err=True)
    if not sys.stdin.readline():  # nobody is there any more
        raise click.Abort
    if sys.stderr.isatty():
        click.echo("\033[A\033[2K", nl=False, err=True)  # over the line again: the story goes on unbroken


_lab = partial(Lab, deployment=REFERENCE_WITH_DNS)


@contextlib.contextmanager
def _told_in_one_line() -> Generator[None]:
    """Turn what may go wrong into an exit code and one line on stderr."""
    try:
        yield
    except LabError as error:
        raise click.ClickException(str(error)) from None
    except Interrupted as interrupt:
        click.echo(f"userproxy: interrupted ({interrupt}); the lab is down", err=True)
        sys.exit(interrupt.exit_code)
