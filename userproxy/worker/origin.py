"""Where workers come from: new processes, and those that an earlier control side has left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from userproxy.worker import rendezvous
from userproxy.worker.channel import pair

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class Origin(NamedTuple):
    """Where the workers of a pool come from.

    Attributes:
        start: starts one; returns the connection to it, and its pid. Raises OSError if the system cannot run
            another process.
        find: those of an earlier control side: a connection to each, and its pid, or 0 if that cannot be seen
            from here.
    """

    start: Callable[[], tuple[socket.socket, int]]
    find: Callable[[], list[tuple[socket.socket, int]]]


WORKER = "userproxy.worker.process"


def processes(prefix: str = rendezvous.PREFIX, module: str = WORKER) -> Origin:
    """Processes of their own in this network namespace.

    Args:
        prefix: of the names of the workers' rendezvous sockets. Pools with different ones do not see each
            other's.
        module: that they run.
    """
    return Origin(partial(_start, prefix, module), partial(_find, prefix))


def _start(prefix: str, module: str) -> tuple[socket.socket, int]:
    ours, theirs = pair()
    # -P: modules come from where this program is installed, not from where it was started.
    program = [sys.executable, "-P", "-m", module]
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*program, str(theirs.fileno()), prefix],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
    except OSError:
        ours.close()
        raise
    process.returncode = 0  # it is waited for by pid, when its connection has closed
    return ours, process.pid


def _find(prefix: str) -> list[tuple[socket.socket, int]]:
    _reap_strays()
    return rendezvous.connect_to_all(prefix)


def _reap_strays() -> None:
    """Collect workers of ours that ended while this process was starting anew."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
