"""Programs in the test cluster's network namespace: servers that stay, clients that end.

A server lives as long as its Cluster, and never longer than the thread that started it: the kernel kills it
(PR_SET_PDEATHSIG) when the test process is itself killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLIENT_TIMEOUT = 60.0  # seconds for one kubectl or curl


class ClusterError(RuntimeError):
    """The cluster did not do what was asked; the message says why and, where known, what to do."""


def run_client(
    netns: str | None, command: Sequence[str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a client inside the namespace, past any proxy that the environment names.

    Raises:
        ClusterError: it is not installed, or did not end within CLIENT_TIMEOUT. Its status is the caller's.
    """
    environment = {name: value for name, value in os.environ.items() if not _is_proxy(name)}
    try:
        return subprocess.run(
            in_namespace(netns, command),
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{error.filename} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{command[0]} did not end within {CLIENT_TIMEOUT:.0f} s") from error


def in_namespace(netns: str | None, command: Sequence[str]) -> list[str]:
    """Returns `command` as it is run inside a network namespace.

    `netns` is its name, the path of its file (as in /proc/PID/ns/net), or None for the current one.
    """
    if netns is None:
        return [*command]
    if netns.startswith("/"):
        return ["nsenter", f"--net={netns}", "--", *command]
    return ["ip", "netns", "exec", netns, *command]


class Server:
    """A process with a log file, started and killed any number of times."""

    def __init__(self, command: Sequence[str], *, netns: str | None, log: Path) -> None:
        """`command` is an argv; output of every run is appended to `log`."""
        self.name = log.stem
        self.log = log
        # setpriv and `ip netns exec` both exec, so the pid that we hold is the server's own.
        self._command = ["setpriv", "--pdeathsig", "KILL", *in_namespace(netns, command)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether the process is there; says nothing of whether it serves."""
        return self.pid is not None

    def start(self) -> None:
        """Starts the process in a session of its own, so that a Ctrl-C of the tests does not reach it.

        Raises:
            ClusterError: it runs already, or the program cannot be executed.
        """
        if self.is_running:
            raise ClusterError(f"{self.name} runs already")
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.log.parent,
                    start_new_session=True,
                )
        except OSError as error:
            raise ClusterError(f"{self.name} cannot be started: {error}") from error

    def kill(self) -> None:
        """SIGKILL to the whole process group: a crash, not a shutdown. Returns when it is gone."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def fail_if_ended(self) -> None:
        """Raises ClusterError with the end of the log if the process has ended by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise ClusterError(f"{self.name} ended with status {status}:\n{self.log_tail()}")

    def log_tail(self, lines: int = 15) -> str:
        """The last `lines` lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _is_proxy(variable: str) -> bool:
    return variable.lower() in {"http_proxy", "https_proxy", "all_proxy"}
