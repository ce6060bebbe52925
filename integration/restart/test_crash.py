"""Killed under load: the daemon, without a client noticing, and a worker, with its own connections alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from integration.restart.load import Load, Transfer, workers
from integration.sockets import connect
from userproxy.lab.processes import running_in, wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend


def finished(transfer: Transfer) -> bool:
    with contextlib.suppress(OSError):
        return transfer.finish()
    return False


def test_the_daemon_is_killed_and_started_again_under_load_and_no_connection_fails(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--workers", "2")
    earlier = workers(lab)
    transfers = [Transfer(lab, FRONTEND) for _ in range(8)]
    load = Load(lab, FRONTEND)
    with load.going_on():
        for transfer in transfers:
            transfer.some()
        daemon.kill()
        for transfer in transfers:
            transfer.some()
        began = time.monotonic()
        lab.start_daemon("host1", "--workers", "2")
        back = time.monotonic() - began
    rows = lab.rows("host1", "connections")
    inherited = {int(row["id"].partition("-")[0]) for row in rows}
    print(f"kill -9 of the daemon: {load}; serving again after {back:.2f} s; {len(rows)} connections listed")
    assert load.failed.total() == 0
    assert len(rows) >= 8
    assert inherited & set(earlier)
    intact = sum(transfer.finish() for transfer in transfers[:6])
    print(f"{intact} of 6 uploads intact; 2 others go on while the daemon is told to end")
    assert intact == 6
    heir = lab.daemon("host1")
    heir.send(signal.SIGTERM)
    wait_until("it stops", lambda: "stopping" in heir.output(), 5.0)
    connect(lab, "client", FRONTEND).close()  # by the kernel: it is no longer among theirs
    assert all(transfer.finish() for transfer in transfers[6:])
    assert heir.wait(15.0) == 0
    wait_until("nothing is left", lambda: not running_in([lab.namespace("host1")]), 5.0)


def test_a_worker_is_killed_and_only_its_own_connections_fail(lab: Lab) -> None:
    lab.start_daemon("host1", "--workers", "2")
    victim, survivor = workers(lab)
    transfers: list[Transfer] = []
    while (
        len(transfers) < 8
        or len({row["id"].partition("-")[0] for row in lab.rows("host1", "connections")}) < 2
    ):
        transfers.append(Transfer(lab, FRONTEND))
    owners = [row["id"].partition("-")[0] for row in lab.rows("host1", "connections")]
    load = Load(lab, FRONTEND)
    with load.going_on():
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until("it is replaced", lambda: len(set(workers(lab)) - {victim, survivor}) == 1, 5.0)
        replaced = time.monotonic() - began
    intact = sum(finished(transfer) for transfer in transfers)
    print(
        f"kill -9 of a worker: a process in its place after {replaced:.2f} s; {load}; "
        f"{intact} of {len(transfers)} uploads intact, {owners.count(str(survivor))} were the other worker's"
    )
    assert replaced < 1.0
    assert load.failed["ConnectionRefusedError"] == load.failed["TimeoutError"] == 0
    assert load.failed.total() <= 20  # those that the worker had just then
    assert intact == owners.count(str(survivor))
    assert "a worker has died, and is replaced" in lab.daemon("host1").output()
