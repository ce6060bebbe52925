"""A cgroup with a limit of memory, for the time of a block, where this machine lets us make one."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab
    from userproxy.lab.processes import Process

MEGABYTE = 1 << 20
_WORST = "1000"  # of oom_score_adj: the first to be killed
_EAT = """
import sys, time
eaten = []
for _ in range(int(sys.argv[1])):
    eaten.append(bytearray(b"x") * (1 << 20))
    time.sleep(0.005)
"""


class MemoryGroup:
    """A cgroup, of either version.

    Attributes:
        directory: of it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._unified = (directory / "memory.max").exists()

    @property
    def under(self) -> tuple[str, ...]:
        """The command that runs a program in it."""
        # By way of our own mounts: `ip netns exec` gives a program a /sys without cgroups.
        procs = f"/proc/{os.getpid()}/root{self.directory}/cgroup.procs"
        return ("sh", "-c", f'echo $$ >"{procs}" && exec "$@"', "sh")

    def leave(self, spare: int) -> None:
        """Let it have so many bytes beside those in use, not counting files, which can be read again."""
        used = int(self._file("memory.current", "memory.usage_in_bytes").read_text())
        self._file("memory.max", "memory.limit_in_bytes").write_text(str(used - self._cached + spare))

    @property
    def kills(self) -> int:
        """How many processes in it were killed for want of memory."""
        text = self._file("memory.events", "memory.oom_control").read_text()
        return int(text.partition("oom_kill ")[2].split()[0])

    def eat(self, lab: Lab, name: str, megabytes: int, *, preferred: bool = False) -> Process:
        """A process in it that takes more and more memory, up to so much.

        With `preferred`, the kernel kills it before anybody else, from its first megabyte on.
        """
        first = ("sh", "-c", f'echo {_WORST} >/proc/$$/oom_score_adj && exec "$@"', "sh") if preferred else ()
        return lab.start(name, "host1", *first, *self.under, sys.executable, "-c", _EAT, str(megabytes))

    @property
    def _cached(self) -> int:
        lines = (self.directory / "memory.stat").read_text().splitlines()
        amounts = {name: int(amount) for name, amount in map(str.split, lines)}
        return amounts["inactive_file"] + amounts["active_file"]

    def _file(self, unified: str, v1: str) -> Path:
        return self.directory / (unified if self._unified else v1)


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """An empty cgroup of our own; what runs in it has to be gone at the end of the block.

    The test is skipped where none can be made, with the reason.
    """
    try:
        directory = _ours() / f"userproxy-{os.getpid()}"
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup with a limit of memory can be made here: {error}")
    try:
        yield MemoryGroup(directory)
    finally:
        directory.rmdir()


def prefer(pid: int) -> None:
    """Have the kernel kill that process first."""
    Path(f"/proc/{pid}/oom_score_adj").write_text(_WORST)


def _ours() -> Path:
    """The directory of the cgroup that we are in ourselves, in the hierarchy that limits memory.

    Raises:
        OSError: there is none, or none in which we may limit anybody.
    """
    paths = dict(line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            own = next(path for names, path in paths.items() if "memory" in names.split(","))
            return Path(where + own)
        if kind == "cgroup2" and "memory" in Path(where, "cgroup.subtree_control").read_text().split():
            return Path(where)
    raise FileNotFoundError("no hierarchy of cgroups with the controller `memory` is mounted")
