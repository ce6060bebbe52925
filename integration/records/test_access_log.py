"""The access log: a line an end, whole, whoever writes, rotates or does not read it; and the log's level."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.records.ways import NOBODY
from integration.services import published
from integration.sockets import connect, read_all
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER_SERVICE
from userproxy.model.access_line import AccessLine
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from userproxy.lab.deployment import Lab
    from userproxy.lab.processes import Process

FRONTEND = Address(SERVER_SERVICE.ip, 80)
PATIENCE_SECONDS = 10.0
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@contextlib.contextmanager
def daemon(lab: Lab, *flags: str, under: tuple[str, ...] = ()) -> Iterator[Process]:
    """One of two workers on host2, which is its own client, for the time of the block."""
    process = lab.start_daemon("host2", "--workers", "2", "--drain-seconds", "0", *flags, under=under)
    try:
        yield process
    finally:
        process.stop()


def ask(lab: Lab, count: int) -> list[str]:
    """So many requests, one after the other; the addresses of the clients."""
    clients = []
    for _ in range(count):
        with connect(lab, "host2", FRONTEND) as client:
            clients.append(str(Address(*client.getsockname())))
            client.sendall(_REQUEST)
            assert read_all(client)
    return clients


def lines(*files: Path) -> list[dict[str, Any]]:
    """What is in the files; each line is whole, or this fails."""
    return [json.loads(line) for file in files if file.exists() for line in file.read_bytes().splitlines()]


def test_each_end_is_a_line_in_a_file_that_may_be_rotated(lab: Lab) -> None:
    file = lab.logs / "access.log"
    flags = ("--access-log", "all", "--access-log-file", str(file), "--log-format", "json")
    with daemon(lab, *flags, "--log-level", "error"):
        clients = ask(lab, 30)
        wait_until("they are written", lambda: len(lines(file)) == 30, PATIENCE_SECONDS)
        rotated = file.rename(file.with_suffix(".1"))
        wait_until("it is made anew", file.exists, PATIENCE_SECONDS)
        clients += ask(lab, 30)
        wait_until("all are written", lambda: len(lines(rotated, file)) == 60, PATIENCE_SECONDS)
        found = lines(rotated, file)
        assert {line["client"] for line in found} == set(clients)
        assert len({line["id"].partition("-")[0] for line in found}) == 2, "both workers have written"
        assert all(tuple(line) == AccessLine.__struct_fields__ for line in found)
        assert lines(file), "it goes to the new one"
        last = found[-1]
        print(json.dumps(last, indent=1))
        assert (last["frontend"], last["service"], last["level"]) == (
            str(FRONTEND),
            "default/server-service",
            "info",
        )
        assert lab.userproxy("host2", "connections", "show", last["id"]).startswith(last["id"])
        with connect(lab, "host2", FRONTEND) as client:
            client.sendall(_REQUEST)
            (row,) = lab.rows("host2", "connections")
            lab.userproxy("host2", "kill", row["id"])
        wait_until("it is written", lambda: lines(file)[-1]["reason"] == "killed", PATIENCE_SECONDS)
        assert lines(file)[-1]["level"] == "warning"


@pytest.mark.parametrize("where", ["a log that nobody reads", "a disk that is full"])
def test_nobody_waits_for_it(lab: Lab, where: str) -> None:
    stuck = where == "a log that nobody reads"
    under = ("bash", "-c", 'exec "$@" 2> >(exec sleep 30)', "bash") if stuck else ()
    flags = () if stuck else ("--access-log-file", "/dev/full")
    with daemon(lab, "--access-log", "all", *flags, under=under) as process:
        ask(lab, 300)
        began = time.monotonic()
        ask(lab, 100)
        print(f"{where}: {(time.monotonic() - began) * 10:.1f} ms a request")
        lost = lab.exec("host2", "curl", "-s", "http://127.0.0.1:10249/metrics").stdout
        if not stuck:
            assert "No space left on device" in process.output()
            assert "userproxy_access_log_dropped_total 0.0" not in lost


def test_the_level_of_the_ordinary_log_is_changed_while_it_runs(lab: Lab) -> None:
    with (
        published(lab, "refuses", "10.3.242.71", [Address(SERVER1.ip, NOBODY)]) as frontend,
        daemon(lab) as process,
    ):
        told = "dial failed"  # at level debug, by a worker
        fail(lab, frontend)
        assert lab.userproxy("host2", "log-level").strip() == "info"
        assert lab.userproxy("host2", "log-level", "debug").strip() == "debug"
        assert "an operator changed the log level" in process.output()
        assert told not in process.output()
        fail(lab, frontend)
        wait_until("it is told", lambda: told in process.output(), PATIENCE_SECONDS)
        lab.userproxy("host2", "log-level", "error")
        count = process.output().count(told)
        fail(lab, frontend)
        assert process.output().count(told) == count


def fail(lab: Lab, frontend: Address) -> None:
    """Connect to a Service whose pods refuse."""
    with pytest.raises(ConnectionResetError), connect(lab, "host2", frontend) as client:
        client.recv(1)
