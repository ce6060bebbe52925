"""The machine's cgroups as the rig sees them: mounted anew in its own mount namespaces.

A bare chroot has nothing on /sys/fs/cgroup, a container perhaps a part of it. The kernel tells in
/proc/self/cgroup which hierarchies there are, and root may mount each of them again. Where version 1 has the
controllers that a kubelet needs it is used, version 2 otherwise.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuset", "memory", "pids")
"""The controllers without which a kubelet does not start."""
_CPUSET = ("cpuset.cpus", "cpuset.mems")
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Hierarchies:
    """What the kernel has.

    Attributes:
        v1: each hierarchy, by its controllers (`cpu,cpuacct`) or its name (`name=systemd`, which a kubelet
            uses as well); empty where version 2 is used.
    """

    v1: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Hierarchies:
        """Out of /proc/self/cgroup, whose lines are `NUMBER:CONTROLLERS:PATH`.

        Raises:
            ClusterError: neither version has what a kubelet needs.
        """
        fields = [line.split(":")[1] for line in text.splitlines() if line.count(":") >= 2]
        v1 = tuple(each for each in fields if each)
        bound = {controller for each in v1 for controller in each.split(",")}
        if bound.issuperset(NEEDED):
            return cls(v1)
        if "" not in fields:
            missing = ", ".join(sorted(set(NEEDED) - bound))
            raise ClusterError(f"the kernel has no cgroup controllers {missing}: a kubelet cannot run here")
        return cls(())

    @property
    def mount_script(self) -> str:
        """Shell that mounts these, and /sys where it is missing, in a mount namespace of the rig's own."""
        lines = [f"[ -d {ROOT} ] || mount -t sysfs sysfs /sys"]
        if not self.v1:
            return "\n".join([*lines, f"mount -t cgroup2 cgroup2 {ROOT}"])
        lines.append(f"mount -t tmpfs -o mode=755 cgroups {ROOT}")
        for each, folder in zip(self.v1, self.folders, strict=True):
            options = f"none,{each}" if each.startswith("name=") else each
            where = shlex.quote(str(ROOT / folder))
            lines.append(f"mkdir {where} && mount -t cgroup -o {shlex.quote(options)} cgroup {where}")
            others = [one for one in folder.split(",") if one != folder]
            lines += [f"ln -s {shlex.quote(folder)} {shlex.quote(str(ROOT / one))}" for one in others]
        return "\n".join(lines)

    @property
    def folders(self) -> tuple[str, ...]:
        """Where each of `v1` is mounted, below ROOT."""
        return tuple(each.removeprefix("name=") for each in self.v1)


def here() -> Hierarchies:
    """Those of this machine."""
    return Hierarchies.of(Path("/proc/self/cgroup").read_text())


class Groups:
    """Cgroups of the rig, one a node, in each hierarchy. For the caretaker, in its mount namespace."""

    def __init__(self, names: Iterable[str], hierarchies: Hierarchies, root: Path = ROOT) -> None:
        roots = [root / each for each in hierarchies.folders] or [root]
        self._directories = [each / name for each in roots for name in names]
        self._unified = None if hierarchies.v1 else root
        self._enabled: list[str] = []

    def make(self) -> None:
        """Make them, empty, with every controller that a kubelet needs.

        Raises:
            ClusterError: the machine refuses; the message says which and why.
        """
        try:
            if self._unified is not None:
                self._enable(self._unified)
            for directory in self._directories:
                directory.mkdir()
                if self._unified is not None:
                    _switch(directory, "+", _available(directory))
                elif (directory / _CPUSET[0]).exists():
                    for name in _CPUSET:  # version 1 begins with none
                        (directory / name).write_text((directory.parent / name).read_text())
        except OSError as error:
            raise ClusterError(
                f"cgroups cannot be made here, {error.filename or self._unified}: {error.strerror}. Needed: "
                "root, and in a container with cgroup version 2 no process in the root of its cgroups"
            ) from error

    def remove(self) -> list[Path]:
        """End what runs in them, and remove them; returns those that would not go."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (left := [each for each in self._directories if each.exists()]) and time.monotonic() < deadline:
            for directory in left:
                _remove(directory)
            time.sleep(0.1)
        if self._unified is not None and not left:
            with contextlib.suppress(OSError):
                _switch(self._unified, "-", self._enabled)
        return left

    def _enable(self, root: Path) -> None:
        """Hand the controllers down from the root, and remember which were not before."""
        before = (root / "cgroup.subtree_control").read_text().split()
        wanted = _available(root)
        if missing := set(NEEDED) - set(wanted):
            raise ClusterError(f"cgroup v2 has no controllers {', '.join(sorted(missing))} here")
        self._enabled = [each for each in wanted if each not in before]
        _switch(root, "+", self._enabled)


def _available(directory: Path) -> list[str]:
    known = (directory / "cgroup.controllers").read_text().split()
    return [each for each in NEEDED if each in known]


def _switch(directory: Path, sign: str, controllers: list[str]) -> None:
    if controllers:
        text = " ".join(f"{sign}{each}" for each in controllers)
        (directory / "cgroup.subtree_control").write_text(text)


def _remove(directory: Path) -> None:
    """One attempt: kill what is in the tree, remove what is empty of it."""
    for path, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):  # gone meanwhile
            for pid in Path(path, "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):  # not empty yet
            Path(path).rmdir()
