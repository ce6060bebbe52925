"""Processes below others."""

from __future__ import annotations

from pathlib import Path


def child_of(pid: int) -> int:
    """The first child of a process.

    Raises:
        OSError: there is no such process.
        IndexError: it has none.
    """
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
