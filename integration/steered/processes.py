"""The processes that choose for a lab's steered connections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from integration.sockets import PATIENCE_SECONDS
from userproxy.lab.processes import wait_until
from userproxy.worker.steering.crew import PREFIX

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab


def steering_pids(lab: Lab) -> list[int]:
    """Those on host1, as the names of their rendezvous tell."""
    names = Path(f"/proc/{lab.daemon('host1').pid}/net/unix").read_text()
    found = {line.rpartition("@")[2] for line in names.splitlines() if f"@{PREFIX}" in line}
    return sorted({int(name.removeprefix(PREFIX).partition("-")[0]) for name in found})


def wait_for_another(lab: Lab, pids: list[int]) -> None:
    """Wait until other processes choose than these."""

    def is_there() -> bool:
        found = steering_pids(lab)
        return bool(found) and not {*found} & {*pids}

    wait_until("there is another steering process", is_there, PATIENCE_SECONDS)
