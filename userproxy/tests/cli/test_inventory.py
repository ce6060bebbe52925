"""`userproxy services`, `backends` and `status`."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner, Result

from userproxy.cli.daemon import Environment
from userproxy.cli.inventory import status_text
from userproxy.cli.main import cli
from userproxy.model.rows import SourceStatus
from userproxy.tests.ops.daemon import STATUS, MadeUpView, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIELDS = {
    "services": (
        "service protocol path frontends listener backends_up backends connections problems policy family"
    ),
    "backends": "service backend node zone state reason since latency_ms connections",
    "status": "version pid node mode uptime_seconds source services listeners connections problems failing "
    "ruleset",
}


@pytest.fixture
def admin_socket(tmp_path: Path) -> Iterator[Path]:
    with running(tmp_path / "s"):
        yield tmp_path / "s"


def run(admin_socket: Path, *arguments: str, width: int | None = None) -> Result:
    now = dt.datetime(2026, 11, 23, 6, 5, 30, tzinfo=dt.UTC)
    return CliRunner().invoke(
        cli,
        [*arguments, "--admin-socket", str(admin_socket)],
        obj=Environment(terminal_width=lambda: width, now=lambda: now),
    )


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0
    return [line.rstrip() for line in result.stdout.splitlines()]


def test_services_for_programs(admin_socket: Path) -> None:
    assert lines(run(admin_socket, "services")) == [
        (
            "SERVICE                      PROTOCOL  POLICY   FRONTENDS                       LISTENER"
            "          BACKENDS  CONNECTIONS  PROBLEMS"
        ),
        (
            "default/server-service:http  TCP       Cluster  10.3.241.152:80,[fd00::152]:80  10.100.0.2:10400"
            "       1/2            3  -"
        ),
        (
            "default/empty                UDP       Cluster  10.3.241.153:53                 -"
            "                      0/0            0  no endpoints: check the selector"
        ),
    ]


def test_services_in_a_narrow_terminal(admin_socket: Path) -> None:
    assert lines(run(admin_socket, "services", width=80)) == [
        "SERVICE                      POLICY   FRONTENDS         BACKENDS  PROBLEMS",
        "default/server-service:http  Cluster  10.3.241.152:80,       1/2  -",
        "                                      [fd00::152]:80",
        "default/empty                Cluster  10.3.241.153:53        0/0  no endpoints:",
        "                                                                  check the",
        "                                                                  selector",
        "not shown at this width: PROTOCOL, LISTENER, CONNECTIONS (-o wide shows all)",
    ]


def test_services_in_a_wide_terminal(admin_socket: Path) -> None:
    assert lines(run(admin_socket, "services", width=200)) == lines(run(admin_socket, "services"))


def test_backends_for_programs(admin_socket: Path) -> None:
    assert lines(run(admin_socket, "backends", "-o", "wide")) == [
        (
            "SERVICE                      BACKEND        NODE   ZONE  STATE    FOR  SINCE"
            "                 LATENCY  CONNECTIONS  REASON"
        ),
        (
            "default/server-service:http  10.0.1.2:8080  host1  -     up     5m30s  2026-11-23T06:00:00Z"
            "    0.4ms            3  -"
        ),
        (
            "default/server-service:http  10.0.2.2:8080  host2  west  down   1m30s  2026-11-23T06:04:00Z"
            "        -            0  connection refused, 3 times"
        ),
    ]


def test_backends_in_a_narrow_terminal(admin_socket: Path) -> None:
    assert lines(run(admin_socket, "backends", width=80)) == [
        "SERVICE                      BACKEND        NODE   STATE    FOR  REASON",
        "default/server-service:http  10.0.1.2:8080  host1  up     5m30s  -",
        "default/server-service:http  10.0.2.2:8080  host2  down   1m30s  connection",
        "                                                                 refused, 3",
        "                                                                 times",
        "not shown at this width: LATENCY, CONNECTIONS (-o wide shows all)",
    ]


def test_status_tells_the_problems_below_the_facts(admin_socket: Path) -> None:
    assert lines(run(admin_socket, "status")) == [
        "version:     0.1.0",
        "pid:         4711",
        "node:        host1",
        "mode:        redirect-to-host",
        "uptime:      1h1m",
        "source:      manifests, synced",
        "services:    2",
        "listeners:   1",
        "connections: 3",
        "ruleset:     owned",
        "problems:    1",
        "  default/empty: no endpoints",
    ]


@pytest.mark.parametrize("output", ["table", "json"])
def test_status_fails_while_the_daemon_is_out_of_step(tmp_path: Path, output: str) -> None:
    view = MadeUpView()
    away = "kubernetes: https://10.0.0.1:6443 cannot be reached: Connection refused"
    view.status_row = msgspec.structs.replace(
        STATUS, problems=(away, "default/empty: no endpoints"), failing=True
    )
    with running(tmp_path / "s", view):
        result = run(tmp_path / "s", "status", "-o", output)
    assert result.exit_code == 1
    assert away in result.stdout
    assert result.stderr == f"userproxy: the daemon is out of step: {away}\n"


@pytest.mark.parametrize(
    ("synced", "stale", "told"),
    [
        (True, 0.4, "kubernetes, synced"),
        (True, 75.0, "kubernetes, out of touch for 1m15s"),
        (False, 75.0, "kubernetes, not synced yet"),
    ],
)
def test_status_says_how_far_behind_the_source_is(synced: bool, stale: float, told: str) -> None:
    source = SourceStatus(kind="kubernetes", synced=synced, stale_seconds=stale)
    assert f"source:      {told}\n" in status_text(msgspec.structs.replace(STATUS, source=source))


@pytest.mark.parametrize("command", ["services", "backends"])
def test_json_has_the_fields_that_scripts_lean_on(admin_socket: Path, command: str) -> None:
    rows = json.loads(run(admin_socket, command, "-o", "json").stdout)
    assert [list(row) for row in rows] == [FIELDS[command].split()] * 2


def test_the_json_of_status_is_one_object(admin_socket: Path) -> None:
    row = json.loads(run(admin_socket, "status", "-o", "json").stdout)
    assert list(row) == FIELDS["status"].split()
    assert list(row["source"]) == ["kind", "synced", "stale_seconds", "problem"]


@pytest.mark.parametrize("command", ["services", "backends"])
def test_nothing_yet(tmp_path: Path, command: str) -> None:
    view = MadeUpView()
    view.service_rows, view.backend_rows = [], []
    with running(tmp_path / "s", view):
        result = run(tmp_path / "s", command, "-o", "json")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "[]\n", f"no {command}\n")
        assert len(lines(run(tmp_path / "s", command))) == 1


@pytest.mark.parametrize("command", ["services", "backends", "status"])
def test_without_a_daemon_each_fails_with_the_remedy(tmp_path: Path, command: str) -> None:
    result = run(tmp_path / "s", command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"userproxy: no daemon at {tmp_path}/s: start one with `userproxy run`, "
        "or name its socket with --admin-socket\n"
    )
