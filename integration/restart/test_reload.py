"""SIGHUP has the daemon start anew, and no client notices; a wrong configuration changes nothing."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from integration.restart.load import Load, Transfer, has_started, starts, workers
from integration.vitals import capabilities, has_no_privilege
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE
from userproxy.worker.privileges import CONTROL

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend


def test_sighup_three_times_under_load_and_no_connection_fails(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--workers", "2")
    first = workers(lab)
    needed = sum(1 << each for each in CONTROL)
    assert capabilities(daemon.pid) == {(needed, needed)}
    transfers = [Transfer(lab, FRONTEND) for _ in range(8)]
    load = Load(lab, FRONTEND)
    with load.going_on():
        for number in range(2, 5):
            for transfer in transfers:
                transfer.some()
            daemon.send(signal.SIGHUP)
            wait_until("it started anew", partial(has_started, lab, number), 15.0)
            lab.wait_for_daemon("host1")
            assert len(lab.rows("host1", "connections", "--service", "default/server-service")) >= 8
    intact = sum(transfer.finish() for transfer in transfers)
    print(f"SIGHUP three times: {load}; {intact} of {len(transfers)} uploads intact")
    assert load.failed.total() == 0
    assert intact == len(transfers)
    wait_until("the earlier workers have ended", lambda: len(workers(lab)) == 2, 10.0)
    assert not set(first) & set(workers(lab))
    assert capabilities(daemon.pid) == {(needed, needed)}
    assert all(map(has_no_privilege, workers(lab)))
    assert "Traceback" not in daemon.output()


def test_signals_while_it_starts_anew_wait_and_are_not_the_end(lab: Lab) -> None:
    daemon = lab.start_daemon("host1")
    transfer = Transfer(lab, FRONTEND)
    transfer.some()
    sent = 0
    while starts(lab) < 3 and daemon.alive:
        daemon.send(signal.SIGHUP)
        sent += 1
        time.sleep(0.01)
    print(f"{sent} SIGHUP, one every 10 ms: {starts(lab)} starts, alive: {daemon.alive}")
    assert daemon.alive
    assert transfer.finish()
    daemon.send(signal.SIGHUP)
    wait_until("it starts anew", lambda: daemon.output().count("starting anew") >= 3, 5.0)
    daemon.send(signal.SIGTERM)
    assert daemon.wait(15.0) == 0
    assert workers(lab) == []
    assert "stopped" in daemon.last_line()


def test_a_wrong_configuration_is_refused_with_one_line_and_nothing_happens(lab: Lab) -> None:
    file = lab.directory / "config.yaml"
    file.write_text("workers: 1\n")
    daemon = lab.start_daemon("host1", "--config", str(file))
    before, lines = workers(lab), len(daemon.output().splitlines())
    transfer = Transfer(lab, FRONTEND)
    file.write_text("workers: none\n")
    daemon.send(signal.SIGHUP)
    wait_until("it says so", lambda: "not started anew" in daemon.output(), 5.0)
    said = daemon.output().splitlines()[lines:]
    print(f"refused: {said}")
    assert len(said) == 1
    assert "config.yaml" in said[0]
    assert workers(lab) == before
    assert transfer.finish()
    file.write_text("workers: 2\n")
    daemon.send(signal.SIGHUP)
    wait_until("it started anew", lambda: starts(lab) == 2, 15.0)
    lab.wait_for_daemon("host1")
    wait_until("there are two workers", lambda: len(workers(lab)) == 2, 10.0)
