"""Two workers look like one daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.restart.load import Load, Transfer, workers
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

FRONTEND = SERVER_SERVICE.frontend


def test_what_two_workers_do_is_told_as_one(lab: Lab) -> None:
    lab.start_daemon("host1", "--workers", "2")
    load = Load(lab, FRONTEND)
    with load.going_on():
        pass
    wait_until("they are over", lambda: not lab.rows("host1", "connections"), 5.0)
    transfers: list[Transfer] = []
    while (
        len(transfers) < 20
        or len({row["id"].partition("-")[0] for row in lab.rows("host1", "connections")}) < 2
    ):
        transfers.append(Transfer(lab, FRONTEND))
    rows = lab.rows("host1", "connections")
    (service,) = lab.rows("host1", "services")
    backends = lab.rows("host1", "backends")
    (status,) = [lab.userproxy("host1", "status", "-o", "json")]
    by_worker = {pid: sum(row["id"].startswith(f"{pid}-") for row in rows) for pid in workers(lab)}
    print(f"{len(rows)} connections, by worker {by_worker}; {load}")
    print([(row["backend"], row["connections"], row["latency_ms"]) for row in backends])
    assert len({row["id"] for row in rows}) == len(rows) == len(transfers) == service["connections"]
    assert sum(by_worker.values()) == len(rows)
    assert f'"connections":{len(rows)}' in status.replace(" ", "")
    for row in backends:
        assert row["connections"] == sum(each["backend"] == row["backend"] for each in rows)
        assert row["latency_ms"] is not None
    assert load.failed.total() == 0
    assert abs(load.answered["server1"] - load.answered["server2"]) <= 2
    assert all(transfer.finish() for transfer in transfers)
