"""Somebody else flushes the ruleset while connections go on, on either path: ours stays, and none fails."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from integration.restart.load import Load, Transfer, has_started
from integration.services import published
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2, SERVER_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend
PODS = (SERVER1.address, SERVER2.address)
SWEEPS = {
    "nft flush ruleset": ("nft", "flush ruleset"),
    "systemctl restart nftables": ("nft", "flush ruleset; table inet filter { chain input { accept; }; }"),
    "firewall-cmd --reload": ("nft", "flush ruleset inet; add table inet firewalld"),
    "iptables-restore": ("iptables-nft-restore", "--table", "nat", "/dev/null"),
    "nft delete table": ("nft", "delete table inet userproxy"),
}
PIECES = 200


@contextlib.contextmanager
def sweeping(lab: Lab) -> Iterator[None]:
    """Somebody flushes the host's ruleset again and again, for the time of the block."""
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            lab.exec("host1", "nft", "flush ruleset")

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_others_sweep_the_ruleset_and_no_connection_fails(lab: Lab) -> None:
    daemon = lab.start_daemon("host1")
    with published(lab, "carried", "10.3.241.40", PODS, path="redirect-to-pod") as carried:
        paths = (FRONTEND, carried)
        loads = [Load(lab, frontend, rate=50, threads=2) for frontend in paths]
        transfers = [Transfer(lab, frontend, pieces=PIECES) for frontend in paths for _ in range(2)]
        with loads[0].going_on(), loads[1].going_on():
            for command in SWEEPS.values():
                lab.exec("host1", *command, check=False)
                for transfer in transfers:
                    transfer.some()
            with sweeping(lab):
                daemon.send(signal.SIGHUP)
                wait_until("it started anew", lambda: has_started(lab, 2), 15.0)
                lab.wait_for_daemon("host1")
        intact = sum(transfer.finish() for transfer in transfers)
        for load in loads:
            print(f"swept: {load}; {intact} of {len(transfers)} uploads intact")
            assert load.failed.total() == 0
        assert intact == len(transfers)
    assert "ruleset:     owned" in lab.userproxy("host1", "status")
    assert "changed by somebody else" not in daemon.output(), "it had nothing to put back"
