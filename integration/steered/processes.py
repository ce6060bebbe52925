"""The processes that choose for a lab's steered connections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from userproxy.worker.steering.crew import PREFIX

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab


def steering_pids(lab: Lab) -> list[int]:
    """Those on host1, as the names of their rendezvous tell."""
    names = Path(f"/proc/{lab.daemon('host1').pid}/net/unix").read_text()
    found = {line.rpartition("@")[2] for line in names.splitlines() if f"@{PREFIX}" in line}
    return sorted({int(name.removeprefix(PREFIX).partition("-")[0]) for name in found})
