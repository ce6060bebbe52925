"""The path steered: exact turns, nobody refused when processes end, and a pod that refuses costs nobody."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

_URL = "http://10.3.241.152"
_SERVER = re.compile(r"server[12]")
_PREFIX = "userproxy-steering-"


def asked(lab: Lab, times: int) -> Counter[str]:
    """Who answers so many connections, each a new one."""
    found = (lab.exec("client", "curl", "-sS", "--max-time", "8", _URL).stdout for _ in range(times))
    return Counter(_SERVER.findall(text)[0] for text in found)


def steering_pid(lab: Lab) -> int:
    """The steering process's, as its rendezvous tells."""
    names = Path(f"/proc/{lab.daemon('host1').pid}/net/unix").read_text()
    (name,) = {line.rpartition("@")[2] for line in names.splitlines() if f"@{_PREFIX}" in line}
    return int(name.removeprefix(_PREFIX).partition("-")[0])


def test_backends_take_turns_exactly_and_go_on_without_a_steering_process(lab: Lab) -> None:
    steering_pid(lab)
    turns = asked(lab, 40)
    assert sorted(turns.values()) == [20, 20]
    pid = steering_pid(lab)
    os.kill(pid, signal.SIGKILL)
    assert asked(lab, 10).total() == 10
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if steering_pid(lab) != pid:
                break
        except ValueError:
            pass
        time.sleep(0.2)
    time.sleep(0.5)
    assert sorted(asked(lab, 20).values()) == [10, 10]
