"""A systemd of its own on a host of a lab, which runs scripts/deploy/userproxy.service and nothing else.

It is the first process of a pid namespace, with a /run, an /sys/fs/cgroup and units of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from integration.restart.family import child_of
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

UNIT = "userproxy.service"
PATIENCE_SECONDS = 20.0
_TOP = Path(__file__).parents[2]
_TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")
_ALONE = ("unshare", "--mount", "--propagation=private")
_START = """\
set -e
mount -t proc proc /proc
mount --bind "$2" /mnt
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lab /run/cgroup
mount --bind /mnt /run/lab
umount /mnt
mount -t cgroup2 cgroup2 /run/cgroup
mkdir "/run/cgroup/$1"
echo 0 >"/run/cgroup/$1/cgroup.procs"
exec env container=lab SYSTEMD_UNIT_PATH=/run/lab/units unshare --cgroup bash -ec '
    umount /run/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=false'
"""
_END = """\
mount -t cgroup2 cgroup2 /mnt
find "/mnt/$1" -depth -type d -exec rmdir {} +
"""


class Systemd:
    """A systemd that runs; `systemctl` speaks to it.

    Attributes:
        log: what the daemons have said.
    """

    def __init__(self, lab: Lab, pid: int) -> None:
        self.log = lab.directory / "units" / "log"
        self._lab = lab
        self._pid = pid

    def ctl(self, *command: str) -> str:
        """What systemctl says; its failure is no error."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--", "systemctl"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60.0, check=False)
        return f"{done.stdout}{done.stderr}".strip()

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.ctl("show", UNIT, f"--property={name}", "--value")

    @property
    def main_pid(self) -> int:
        """The daemon, as this process calls it; 0 if it does not run."""
        own = self.show("MainPID")
        for status in Path("/proc").glob("[0-9]*/status") if own != "0" else ():
            with contextlib.suppress(OSError):
                if (status.parent / "ns/pid").readlink() == Path(f"/proc/{self._pid}/ns/pid").readlink():
                    (line,) = (line for line in status.read_text().splitlines() if line.startswith("NSpid:"))
                    if line.split()[-1] == own:
                        return int(status.parent.name)
        return 0


@contextlib.contextmanager
def systemd(lab: Lab, host: str, *options: str) -> Iterator[Systemd]:
    """Start one; the unit is there, and not started.

    Args:
        lab: where.
        host: of it.
        options: of the unit's daemon, beside those that make it one of this lab.
    """
    units = lab.directory / "units"
    units.mkdir()
    for target in _TARGETS:
        (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (units / UNIT).write_bytes((_TOP / "scripts" / "deploy" / UNIT).read_bytes())
    folder = units / f"{UNIT}.d"
    folder.mkdir()
    program = [str(Path(sys.executable).with_name("userproxy")), "run", "--manifests=/run/lab/manifests"]
    shown = {str(_TOP), sys.prefix, sys.base_prefix, "/run/lab"} - {"/usr"}
    lines = [
        "[Service]",
        "ExecStart=",
        f"ExecStart={' '.join([*program, f'--node-name={host}', *options])}",
        "StandardOutput=append:/run/lab/units/log",
        "StandardError=append:/run/lab/units/log",
        f"BindReadOnlyPaths={' '.join(sorted(shown))}",
    ]
    (folder / "lab.conf").write_text("\n".join(lines))
    name = f"userproxy-{lab.name}"
    machine = [*_ALONE, "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
    process = lab.start("systemd", host, *machine, "bash", "-c", _START, "systemd", name, str(lab.directory))
    try:
        running: list[Systemd] = []

        def answers() -> bool:
            with contextlib.suppress(OSError, IndexError):
                running[:] = [Systemd(lab, child_of(process.pid))]
                return running[0].show("LoadState") == "loaded"
            return False

        wait_until(f"systemd answers: {process.last_line()}", answers, PATIENCE_SECONDS)
        yield running[0]
    finally:
        process.kill()
        alone = [*_ALONE, "bash", "-ec", _END, "systemd", name]

        def removed() -> bool:
            return subprocess.run(alone, check=False, capture_output=True).returncode == 0

        wait_until("its cgroups are gone", removed, PATIENCE_SECONDS)
