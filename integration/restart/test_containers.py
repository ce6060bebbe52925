"""Daemons in containers: one hands over to the next, and one that is killed is started anew where it was."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.restart.family import child_of
from integration.restart.load import PATIENCE_SECONDS, Load, Transfer, workers
from integration.restart.test_observers import HEALTHZ, Observer
from integration.restart.test_swept import sweeping
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab
    from userproxy.lab.processes import Process

FRONTEND = SERVER_SERVICE.frontend
# A pid namespace with nothing else in it, in the host's network namespace.
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def start(lab: Lab, ready: Path, name: str = "") -> Process:
    options = ("--take-over", "true", "--ready-file", str(ready), "--workers", "2", "--drain-seconds", "4")
    return lab.start_daemon("host1", *options, under=CONTAINER, wait=not name, name=name)


def memory(pid: int) -> float:
    """What is resident of one process, in MB."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1]) / 1000


def listed_by(lab: Lab) -> set[str]:
    """The names of the workers whose connections are listed."""
    return {row["id"].partition("-")[0] for row in lab.rows("host1", "connections")}


def test_a_container_hands_over_to_the_next_and_stays_until_its_connections_have_ended(lab: Lab) -> None:
    old_ready, new_ready = lab.directory / "old-ready", lab.directory / "new-ready"
    old = start(lab, old_ready)
    wait_until("it is ready", old_ready.exists, PATIENCE_SECONDS)
    earlier = workers(lab)
    transfers = [Transfer(lab, FRONTEND) for _ in range(8)]
    names = listed_by(lab)
    load, probes = Load(lab, FRONTEND), Observer(lab, HEALTHZ, "/healthz", 0.02)
    with load.going_on(), probes.watching(), sweeping(lab):
        began = time.monotonic()
        start(lab, new_ready, name="next")
        wait_until("the next one is ready", new_ready.exists, PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        assert not old_ready.exists()
        for transfer in transfers:
            transfer.some()
        transfers += [Transfer(lab, FRONTEND) for _ in range(4)]
        names_now = listed_by(lab)
    print(f"the next container is ready after {seconds:.2f} s; {load}; probes: {probes}")
    assert load.failed.total() == 0
    assert load.slowest < 1.0
    assert (set(probes.statuses), probes.failures.total()) == ({"200"}, 0)
    assert names <= names_now, "connections of the old container are listed"
    assert names_now - names, "and its workers have the pids of others, but not the names"
    assert len(set(earlier) | set(workers(lab))) == 4
    assert all(transfer.finish() for transfer in (*transfers[:6], *transfers[8:]))

    # As the kubelet tells the old one to stop.
    os.kill(child_of(old.pid), signal.SIGTERM)
    wait_until("it has heard", lambda: "told to stop" in old.output(), PATIENCE_SECONDS)
    for transfer in transfers[6:]:
        transfer.some()
    assert transfers[6].finish(), "the others have their time"
    assert old.wait(PATIENCE_SECONDS) == 0
    try:
        transfers[7].finish()
        end = "in order"
    except ConnectionResetError:
        end = "by a reset"
    assert end == "by a reset"
    assert len(workers(lab)) == 2


def test_the_daemon_of_a_container_is_killed_and_nobody_notices(lab: Lab) -> None:
    container = start(lab, lab.directory / "ready")
    first = child_of(container.pid)
    daemon = child_of(first)
    earlier = workers(lab)
    transfers = [Transfer(lab, FRONTEND) for _ in range(4)]
    load = Load(lab, FRONTEND)
    with load.going_on():
        os.kill(daemon, signal.SIGKILL)
        wait_until(
            "another one is there", lambda: container.output().count(" started ") == 2, PATIENCE_SECONDS
        )
        lab.wait_for_daemon("host1")
    print(f"kill -9 in a container: {load}; its first process has {memory(first):.0f} MB")
    assert memory(first) < 20
    assert load.failed.total() == 0
    assert load.slowest < 1.0
    assert child_of(first) != daemon
    assert "the daemon was killed by SIGKILL; it is started anew" in container.output()
    assert all(transfer.finish() for transfer in transfers)
    wait_until(
        "the earlier workers have ended", lambda: not set(earlier) & set(workers(lab)), PATIENCE_SECONDS
    )
    os.kill(first, signal.SIGTERM)
    assert container.wait(PATIENCE_SECONDS) == 0
