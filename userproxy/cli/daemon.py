"""What the commands that ask a daemon have in common: where its socket is, and how they fail."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import msgspec

from userproxy.cli.commands import Option
from userproxy.control.node_lock import NodeLock
from userproxy.ops.client import DEFAULT_PATH, AdminClient, AdminError

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _remove_traces() -> tuple[str, ...]:
    from userproxy.netfilter.cleanup import cleanup  # noqa: PLC0415 - only one command needs netlink

    return cleanup()


def _end_orphans() -> tuple[int, ...]:
    from userproxy.worker.orphans import end_orphans  # noqa: PLC0415 - only one command needs workers

    return end_orphans()


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The world as the commands see it; `click.Context.obj` carries it, so a test can bring its own.

    Attributes:
        terminal_width: the columns of the terminal that stdout is, or None if it is none.
        now: the time, in UTC.
        sleep: waits for so many seconds.
        node_lock: makes the lock of this node.
        end_orphans: ends workers that a daemon has left behind; returns their pids.
        remove_traces: takes everything of ours out of the kernel; returns a line for each thing it found.
    """

    terminal_width: Callable[[], int | None] = _terminal_width
    now: Callable[[], dt.datetime] = _now
    sleep: Callable[[float], None] = time.sleep
    node_lock: Callable[[], NodeLock] = NodeLock
    end_orphans: Callable[[], tuple[int, ...]] = _end_orphans
    remove_traces: Callable[[], tuple[str, ...]] = _remove_traces


pass_environment = click.make_pass_decorator(Environment, ensure=True)


def admin_socket_option(command: _Command) -> _Command:
    """`--admin-socket`, passed as `admin_socket`."""
    return click.option(
        "--admin-socket",
        cls=Option,
        envvar="USERPROXY_ADMIN_SOCKET",
        default=DEFAULT_PATH,
        show_default=True,
        show_envvar=True,
        metavar="PATH",
        help="The socket on which the daemon answers.",
    )(command)


@contextlib.contextmanager
def daemon_at(path: str) -> Iterator[AdminClient]:
    """A daemon to ask; whatever goes wrong ends the command with one line and exit code 1."""
    try:
        with AdminClient(path) as client:
            yield client
    except AdminError as error:
        raise click.ClickException(str(error)) from None
