"""`userproxy services`, `backends` and `status`."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from userproxy.cli.daemon import Environment
from userproxy.cli.filters import service_state
from userproxy.cli.inventory import status_text
from userproxy.cli.listing import Listing
from userproxy.cli.main import cli
from userproxy.model.rows import SourceStatus
from userproxy.tests.ops.daemon import SERVICE, STATUS, UP, MadeUpView, running

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
@pytest.mark.parametrize(
    "why", ["", "kubernetes: https://10.0.0.1:6443 cannot be reached: Connection refused"]
)
def test_status_says_how_far_behind_the_source_is_and_why(
    synced: bool, stale: float, told: str, why: str
) -> None:
    source = SourceStatus(kind="kubernetes", synced=synced, stale_seconds=stale, problem=why)
    told += f": {why}" if why else ""
    assert f"source:      {told}\n" in status_text(msgspec.structs.replace(STATUS, source=source))


@pytest.mark.parametrize("command", ["services", "backends"])
def test_json_has_the_fields_that_scripts_lean_on(admin_socket: Path, command: str) -> None:
    rows = json.loads(run(admin_socket, command, "-o", "json").stdout)
    assert [list(row) for row in rows] == [FIELDS[command].split()] * 2


def test_the_json_of_status_is_one_object(admin_socket: Path) -> None:
    row = json.loads(run(admin_socket, "status", "-o", "json").stdout)
    assert list(row) == FIELDS["status"].split()
    assert list(row["source"]) == ["kind", "synced", "stale_seconds", "problem"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["services", "-n", "default"], ["default/server-service:http", "default/empty"]),
        (["services", "--namespace", "shop"], []),
        (["services", "--service", "default/empty"], ["default/empty"]),
        (["services", "--service", "default/server-service:https"], []),
        (["services", "--state", "degraded"], ["default/server-service:http"]),
        (["services", "--state", "empty"], ["default/empty"]),
        (["services", "--state", "up"], []),
        (["backends", "--state", "down"], ["default/server-service:http"]),
        (["backends", "--service", "default/server-service", "-n", "shop"], []),
    ],
)
def test_the_options_choose(admin_socket: Path, arguments: list[str], names: list[str]) -> None:
    result = run(admin_socket, *arguments, "-o", "json")
    assert [row["service"] for row in json.loads(result.stdout)] == names
    assert result.stderr == ("" if names else f"no {arguments[0][:-1]} matches\n")


@pytest.mark.parametrize(
    ("up", "all_of_them", "state"), [(2, 2, "up"), (1, 2, "degraded"), (0, 2, "down"), (0, 0, "empty")]
)
def test_the_state_of_a_service_is_that_of_its_backends(up: int, all_of_them: int, state: str) -> None:
    assert service_state(msgspec.structs.replace(SERVICE, backends_up=up, backends=all_of_them)) == state


@pytest.mark.parametrize(
    ("arguments", "backends"),
    [
        (["--sort-by", "connections"], ["10.0.2.2:8080", "10.0.1.2:8080"]),
        (["--sort-by", "connections", "--reverse"], ["10.0.1.2:8080", "10.0.2.2:8080"]),
        (["--sort-by", "latency-ms"], ["10.0.2.2:8080", "10.0.1.2:8080"]),
        (["--reverse"], ["10.0.2.2:8080", "10.0.1.2:8080"]),
    ],
)
def test_a_list_is_sorted_by_any_field(admin_socket: Path, arguments: list[str], backends: list[str]) -> None:
    for output in ("json", "yaml"):
        rows = yaml.safe_load(run(admin_socket, "backends", *arguments, "-o", output).stdout)
        assert [row["backend"] for row in rows] == backends


def test_a_field_that_is_not_there_is_named_with_those_that_are(admin_socket: Path) -> None:
    result = run(admin_socket, "backends", "--sort-by", "age")
    assert result.exit_code == 2
    assert "'age' is none of service, backend, node, zone, state, reason, since" in result.stderr


@pytest.mark.parametrize("width", [None, 200])
def test_without_headers_a_list_begins_with_its_first_row(admin_socket: Path, width: int | None) -> None:
    whole = lines(run(admin_socket, "services", width=width))
    assert lines(run(admin_socket, "services", "--no-headers", width=width)) == whole[1:]


@pytest.mark.parametrize("command", ["services", "backends", "status"])
def test_yaml_is_what_json_is(admin_socket: Path, command: str) -> None:
    told = {output: run(admin_socket, command, "-o", output).stdout for output in ("json", "yaml")}
    assert yaml.safe_load(told["yaml"]) == json.loads(told["json"])
    assert list(yaml.safe_load(told["yaml"])) == list(json.loads(told["json"]))


def test_addresses_are_sorted_as_numbers() -> None:
    rows = [msgspec.structs.replace(UP, backend=f"10.0.0.{last}:80") for last in (10, 9, 100)]
    listed = Listing(sort_by="backend").sorted(rows)
    sorted_by = [json.loads(msgspec.json.encode(row))["backend"] for row in listed]
    assert sorted_by == ["10.0.0.9:80", "10.0.0.10:80", "10.0.0.100:80"]


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
