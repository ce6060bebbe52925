"""What the benchmark ran on, as far as it bears on the figures."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine.

    Attributes:
        cpu: its name.
        cpus: that this process may use.
        memory_gib: of the whole machine.
        kernel: its release.
        system: the distribution.
        python: its version, and which one it is: those built without optimisation are slower.
        governor: of the CPU's frequency, or that there is none to see.
        load: of one minute, when the run began: above a few tenths, somebody else was at work too.
        hypervisor: whether it is a virtual machine.
    """

    cpu: str
    cpus: int
    memory_gib: float
    kernel: str
    system: str
    python: str
    governor: str
    load: float
    hypervisor: bool


def inspect() -> Machine:
    """This machine, now."""
    cpuinfo = _read("/proc/cpuinfo")
    return Machine(
        cpu=_field(cpuinfo, "model name") or platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        python=f"{platform.python_version()} ({Path(sys.executable).resolve()})",
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "not visible",
        load=os.getloadavg()[0],
        hypervisor="hypervisor" in (_field(cpuinfo, "flags") or "").split(),
    )


def _field(text: str, name: str) -> str | None:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
