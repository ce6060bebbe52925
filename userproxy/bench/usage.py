"""What processes have used, out of /proc: CPU time and resident memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

_PROC = Path("/proc")


class CpuTime(msgspec.Struct, frozen=True):
    """Seconds of CPU time in user space and in the kernel on a process's behalf."""

    user: float
    system: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.system - earlier.system)


def family(pid: int) -> list[int]:
    """The process and all its descendants that live."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for thread in _listing(_PROC / str(parent) / "task"):
            found += map(int, _read(thread / "children").split())
    return found


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """All their CPU time so far, all threads included; those that have ended count as nothing."""
    tick = os.sysconf("SC_CLK_TCK")
    ticks = [parse_stat(text) for pid in pids if (text := _read(_PROC / str(pid) / "stat"))]
    return CpuTime(sum(user for user, _ in ticks) / tick, sum(system for _, system in ticks) / tick)


def resident_bytes(pids: Iterable[int]) -> int:
    """Their resident memory; pages that several share count for each."""
    pages = [int(text.split()[1]) for pid in pids if (text := _read(_PROC / str(pid) / "statm"))]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def parse_stat(text: str) -> tuple[int, int]:
    """The utime and stime, in clock ticks, of one line of /proc/PID/stat (proc_pid_stat(5)).

    Raises:
        ValueError: it is no such line.
    """
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything, brackets too
    try:
        return int(fields[11]), int(fields[12])
    except IndexError:
        raise ValueError(f"not a line of /proc/PID/stat: {text[:60]!r}") from None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # it has ended
        return ""


def _listing(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
