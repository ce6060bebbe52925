"""`scripts/deploy/userproxy.service` under a real systemd: started, reloaded, killed, restarted, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.restart.load import PATIENCE_SECONDS, Load, Transfer, workers
from integration.restart.systemd import UNIT, Systemd, systemd
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend
FILE = Path(__file__).parents[2] / "scripts" / "deploy" / UNIT
WORST_EXPOSURE = 3.0
"""As `systemd-analyze security` counts: 0 is none, 10 all."""


@pytest.fixture(autouse=True)
def _there() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed: run scripts/install --dev")


def test_the_unit_makes_sense_and_exposes_little(tmp_path: Path) -> None:
    unit = tmp_path / UNIT
    unit.write_text(FILE.read_text().replace("/opt/userproxy/bin/userproxy", "/usr/bin/env"))
    verify = ["systemd-analyze", "verify", str(unit)]
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr, said.returncode) == ("", "", 0)
    command = ["systemd-analyze", "security", "--offline=true", "--json=short", str(unit)]
    subprocess.run([*command, f"--threshold={WORST_EXPOSURE * 10:g}"], check=True, capture_output=True)


def test_nothing_that_systemd_or_anybody_does_to_it_refuses_a_connection(lab: Lab) -> None:
    with systemd(lab, "host1", "--workers=2", "--drain-seconds=3") as system:
        began = time.monotonic()
        assert system.ctl("start", UNIT) == ""
        print(f"started in {time.monotonic() - began:.1f} s: {system.show('ActiveState')}")
        assert system.show("ActiveState") == "active"
        assert system.show("WatchdogTimestamp"), "systemd has heard its heart beat"
        daemon = system.main_pid
        transfers = [Transfer(lab, FRONTEND) for _ in range(4)]
        load = Load(lab, FRONTEND, rate=300)
        with load.going_on():
            assert system.ctl("reload", UNIT) == ""
            # systemd before version 253 does not wait for it, but tells
            wait_until("it starts anew", lambda: starts(system) == 2, PATIENCE_SECONDS)
            wait_until("it is ready", lambda: system.show("ActiveState") == "active", PATIENCE_SECONDS)
            assert system.main_pid == daemon

            os.kill(daemon, signal.SIGKILL)
            wait_until("systemd starts it again", lambda: is_another(system, daemon), PATIENCE_SECONDS)
            daemon = system.main_pid
            for transfer in transfers:
                transfer.some()

            assert all(transfer.finish() for transfer in transfers)

            assert system.ctl("restart", UNIT) == ""
            assert is_another(system, daemon)
            assert system.ctl("stop", UNIT) == ""
            assert (system.main_pid, system.show("ActiveState")) == (0, "inactive")
            assert workers(lab) == []
        print(load)
        assert load.failed.total() == 0
        assert load.slowest < 1.0


def starts(system: Systemd) -> int:
    return system.log.read_text().count(" started ")


def is_another(system: Systemd, daemon: int) -> bool:
    return system.show("ActiveState") == "active" and system.main_pid not in (0, daemon)
