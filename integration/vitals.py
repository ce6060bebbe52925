"""What the kernel says of a running daemon with its workers: descriptors, memory, processor time."""

from __future__ import annotations

import os
from pathlib import Path


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def open_files(pid: int) -> int:
    """How many file descriptors they have open."""
    return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in family(pid))


def resident_bytes(pid: int) -> int:
    """How much memory they occupy (VmRSS); what they share counts for each."""
    found = 0
    for each in family(pid):
        status = Path(f"/proc/{each}/status").read_text()
        found += int(status.partition("VmRSS:")[2].split()[0]) * 1024
    return found


def cpu_seconds(pid: int) -> float:
    """The processor time that they have used, user's and system's."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
