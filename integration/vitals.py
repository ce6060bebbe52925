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


def statuses(pid: int) -> list[dict[str, str]]:
    """What the kernel says of each thread of a process."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return [
        {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
        for text in texts
    ]


def user_of(pid: int) -> int:
    """Whose process it is, in every respect."""
    (user,) = {int(each) for status in statuses(pid) for each in status["Uid"].split()}
    return user


def is_dumpable(pid: int) -> bool:
    """Whether its files in /proc are its own user's (proc(5))."""
    return Path(f"/proc/{pid}/mem").stat().st_uid == user_of(pid)


def has_no_privilege(pid: int) -> bool:
    """Whether no thread has any capability, or a way to one, and none is root's."""
    return all(
        all(int(status[each], 16) == 0 for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
        and status["NoNewPrivs"] == "1"
        and "0" not in status["Uid"].split() + status["Gid"].split()
        and status["Groups"] == ""
        for status in statuses(pid)
    )


def capabilities(pid: int) -> set[tuple[int, int]]:
    """What each thread may do, and what it may come to: CapEff and CapBnd."""
    return {(int(status["CapEff"], 16), int(status["CapBnd"], 16)) for status in statuses(pid)}
