"""A process that holds namespaces, for others to run in: the machine of a node, or of the control plane."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

_KINDS = ("mount", "uts", "net", "pid")
_START_SECONDS = 30.0
_END_SECONDS = 15.0


class Space:
    """Network namespace alone, or those of a whole machine with a first process of its own.

    It ends with the thread that starts it, and with it, by the kernel, all that runs in its pid namespace and
    everything mounted in its mount namespace.
    """

    def __init__(self, name: str, directory: Path, *, setup: str = "", init: Sequence[str] = ()) -> None:
        """Describe it; nothing runs before `start`.

        Args:
            name: the host name, and what messages call it.
            directory: for its log; exists.
            setup: shell that is run in its namespaces first.
            init: the first process, which must reap. Without one there is a network namespace alone.
        """
        self.name = name
        self._directory = directory
        self._setup = setup
        self._init = list(init)
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        """The process that holds the namespaces; of our own pid namespace."""
        return self._pid

    @property
    def netns(self) -> str:
        """The file of its network namespace."""
        return f"/proc/{self._pid}/ns/net"

    def start(self) -> None:
        """Make the namespaces; returns when `setup` is through.

        Raises:
            ClusterError: it failed; with the end of what it said.
        """
        log = self._directory / f"{self.name}.log"
        ready = self._directory / f"{self.name}.ready"
        flags = ["--net"]
        if self._init:
            flags += ["--mount", "--propagation=private", "--uts", "--pid", "--fork", "--kill-child=KILL"]
        script = f'set -e\n{self._setup}\ntouch "$1"\nshift\nexec "$@"'
        command = ["unshare", *flags, "bash", "-c", script, self.name, str(ready)]
        command += self._init or ["sleep", "infinity"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(f"{self.name} did not come up: {log.read_text().strip()}")
            time.sleep(0.02)
        self._pid = child_of(self._process.pid) if self._init else self._process.pid

    def stop(self) -> None:
        """End it, and all that runs in its pid namespace. May be called at any time, and again."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if self._init and self._pid:
            # The first process ends when all others in its pid namespace have, and unshare then.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        process.kill()
        process.wait()

    def enter(self, command: Sequence[str]) -> list[str]:
        """The argument vector that runs a program in all its namespaces.

        `nsenter` and not `ip netns exec`, which would mount a /sys without cgroups. It stays as the program's
        parent, because only a child can enter a pid namespace.
        """
        kinds = [f"--{kind}" for kind in _KINDS]
        # --root: entering a mount namespace leaves a chroot
        return ["nsenter", f"--target={self._pid}", *kinds, "--root", "--wd", "--", *command]


def child_of(pid: int) -> int:
    """The only child of a process that forks once, such as unshare and nsenter.

    Raises:
        ClusterError: it has none, so it has ended or is about to.
    """
    with contextlib.suppress(OSError):
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
    raise ClusterError(f"process {pid} has no child: what it was to run did not start")
