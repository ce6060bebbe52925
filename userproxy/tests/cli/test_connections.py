"""`userproxy connections`: what is printed, where, and for whom."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from userproxy.cli.daemon import Environment
from userproxy.cli.main import cli
from userproxy.cli.top import command
from userproxy.cli.top.arrange import SortBy, Wanted
from userproxy.cli.top.remote import Remote
from userproxy.tests.ops.daemon import MadeUpView, connection, running

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = [
    connection(1),
    connection(2, client="10.0.2.9:40122", backend="10.0.2.2:8080", bytes_up=10_485_760, idle_seconds=75.0),
    connection(3, service="kube-system/dns", backend="", source="", state="connecting", age_seconds=0.3),
]
FIELDS = [
    "id",
    "protocol",
    "service",
    "client",
    "frontend",
    "listener",
    "source",
    "backend",
    "state",
    "path",
    "started_at",
    "age_seconds",
    "idle_seconds",
    "bytes_up",
    "bytes_down",
    "unknown",
]


@pytest.fixture
def admin_socket(tmp_path: Path) -> Iterator[Path]:
    with running(tmp_path / "s", MadeUpView(ROWS)):
        yield tmp_path / "s"


def run(admin_socket: Path, *arguments: str, width: int | None = None, wait: int = 0) -> Result:
    """Run it; `--watch` is interrupted after so many waits."""
    waits = iter(range(wait))

    def sleep(_seconds: float) -> None:
        if next(waits, None) is None:
            raise KeyboardInterrupt

    seconds = iter(range(60))

    def now() -> dt.datetime:
        return dt.datetime(2026, 11, 23, 6, 5, next(seconds), tzinfo=dt.UTC)

    return CliRunner().invoke(
        cli,
        ["connections", "--admin-socket", str(admin_socket), *arguments],
        obj=Environment(terminal_width=lambda: width, sleep=sleep, now=now),
    )


def test_programs_get_plain_columns_at_full_width(admin_socket: Path) -> None:
    result = run(admin_socket)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        (
            "ID  SERVICE                      CLIENT          FRONTEND         BACKEND        STATE"
            "          AGE   IDLE     UP    DOWN"
        ),
        (
            "1   default/server-service:http  10.0.1.3:40001  10.3.241.152:80  10.0.1.2:8080  established"
            "  3m12s     0s   512B  1.2MiB"
        ),
        (
            "2   default/server-service:http  10.0.2.9:40122  10.3.241.152:80  10.0.2.2:8080  established"
            "  3m12s  1m15s  10MiB  1.2MiB"
        ),
        (
            "3   kube-system/dns              10.0.1.3:40003  10.3.241.152:80  -              connecting"
            "      0s     0s   512B  1.2MiB"
        ),
    ]


@pytest.mark.parametrize(("output", "columns"), [("table", 10), ("wide", 15)])
def test_every_line_has_the_same_number_of_fields_for_awk(
    admin_socket: Path, output: str, columns: int
) -> None:
    lines = run(admin_socket, "-o", output).stdout.splitlines()
    assert {len(line.split()) for line in lines} == {columns}


def test_what_nobody_knows_is_no_figure(tmp_path: Path) -> None:
    unknown = ("age_seconds", "bytes_up", "bytes_down")
    row = connection(1, bytes_up=0, bytes_down=0, age_seconds=7.0, idle_seconds=7.0, unknown=unknown)
    with running(tmp_path / "s", MadeUpView([row])):
        told = run(tmp_path / "s").stdout.splitlines()[1]
        (raw,) = json.loads(run(tmp_path / "s", "-o", "json").stdout)
    assert told.split()[-4:] == ["-", "7s", "-", "-"]
    assert (raw["age_seconds"], raw["bytes_up"], raw["unknown"]) == (7.0, 0, list(unknown))


def test_json_has_the_fields_that_scripts_lean_on_raw(admin_socket: Path) -> None:
    rows = json.loads(run(admin_socket, "-o", "json", width=80).stdout)

    assert [list(row) for row in rows] == [FIELDS] * 3
    assert rows[1]["bytes_up"] == 10_485_760
    assert rows[1]["idle_seconds"] == 75.0
    assert rows[2]["backend"] == ""


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--service", "default/server-service"], ["1", "2"]),
        (["--service", "default/server-service:https"], []),
        (["--client", "10.0.1.3"], ["1", "3"]),
        (["--client", "10.0.2.0/24"], ["2"]),
        (["--backend", "10.0.2.2:8080"], ["2"]),
        (["--client", "10.0.0.0/14", "--backend", "10.0.1.2"], ["1"]),
    ],
)
def test_the_options_choose(admin_socket: Path, options: list[str], ids: list[str]) -> None:
    rows = json.loads(run(admin_socket, "-o", "json", *options).stdout)
    assert [row["id"] for row in rows] == ids


@pytest.mark.parametrize(
    ("output", "stdout"),
    [
        ("table", "ID  SERVICE  CLIENT  FRONTEND  BACKEND  STATE  AGE  IDLE  UP  DOWN\n"),
        ("json", "[]\n"),
    ],
)
def test_nothing_is_said_on_stderr_and_stdout_stays_parseable(
    admin_socket: Path, output: str, stdout: str
) -> None:
    result = run(admin_socket, "-o", output, "--client", "192.0.2.1")
    assert (result.exit_code, result.stdout, result.stderr) == (0, stdout, "no connection matches\n")


def test_no_connections_at_all(tmp_path: Path) -> None:
    with running(tmp_path / "s", MadeUpView([])):
        assert run(tmp_path / "s").stderr == "no connections\n"


@pytest.mark.parametrize(
    ("option", "value"), [("--service", "web"), ("--client", "10.0.0.0/40"), ("--backend", "10.0.1.2:http")]
)
def test_a_wrong_filter_is_a_usage_error_that_quotes_it(option: str, value: str) -> None:
    result = run(Path("/nowhere"), option, value)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"userproxy connections: Invalid value for '{option}': '{value}' is not" in result.stderr
    assert "(see userproxy connections --help)" in result.stderr


def test_a_narrow_terminal_loses_columns_and_says_which_but_no_address(admin_socket: Path) -> None:
    result = run(admin_socket, width=80)

    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "ID  SERVICE                      CLIENT          BACKEND        STATE",
        "1   default/server-service:http  10.0.1.3:40001  10.0.1.2:8080  established",
        "2   default/server-service:http  10.0.2.9:40122  10.0.2.2:8080  established",
        "3   kube-system/dns              10.0.1.3:40003  -              connecting",
        "not shown at this width: FRONTEND, AGE, IDLE, UP, DOWN (-o wide shows all)",
    ]


def test_a_wide_terminal_shows_every_column(admin_socket: Path) -> None:
    shown = [line.rstrip() for line in run(admin_socket, width=200).stdout.splitlines()]
    assert shown == run(admin_socket).stdout.splitlines()


def test_wide_leaves_nothing_out_of_a_narrow_terminal(admin_socket: Path) -> None:
    shown = [line.rstrip() for line in run(admin_socket, "-o", "wide", width=80).stdout.splitlines()]
    assert shown == run(admin_socket, "-o", "wide").stdout.splitlines()


def test_watch_prints_one_snapshot_after_the_other_until_ctrl_c(admin_socket: Path) -> None:
    once = run(admin_socket).stdout
    result = run(admin_socket, "--watch", wait=2)

    assert result.stdout == f"{once}\n{once}\n{once}"
    assert result.exit_code == 130
    assert result.stderr.strip() == ""


def test_watch_prints_json_lines_with_the_time_at_which_each_was_seen(admin_socket: Path) -> None:
    lines = run(admin_socket, "-o", "json", "--watch", wait=1).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [list(row) for row in rows] == [["seen_at", *FIELDS]] * 6
    assert [row["id"] for row in rows] == ["1", "2", "3"] * 2
    assert len({row["seen_at"] for row in rows}) == 2


def test_watch_ends_with_the_daemon(tmp_path: Path) -> None:
    with running(tmp_path / "s"):
        daemon = running(tmp_path / "t")
        daemon.__enter__()

        def sleep(_seconds: float) -> None:
            daemon.__exit__(None, None, None)

        result = CliRunner().invoke(
            cli,
            ["connections", "--watch", "--admin-socket", str(tmp_path / "t")],
            obj=Environment(terminal_width=lambda: None, sleep=sleep),
        )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"userproxy: no daemon at {tmp_path}/t")


@pytest.mark.parametrize(
    ("options", "ids", "wanted"),
    [
        ((), ["1", "2", "3"], Wanted()),
        (("--service", "kube-system/dns"), ["3"], Wanted()),
        (("-n", "default", "--sort-by", "age_seconds"), ["1", "2"], Wanted(sort_by=SortBy.AGE, reverse=True)),
        (
            ("--state", "connecting", "--sort-by", "bytes_down", "--reverse"),
            ["3"],
            Wanted(sort_by=SortBy.BYTES),
        ),
        (("--sort-by", "idle_seconds"), ["1", "2", "3"], Wanted(sort_by=SortBy.IDLE)),
    ],
)
def test_watch_on_a_terminal_is_top(
    admin_socket: Path,
    options: tuple[str, ...],
    ids: list[str],
    wanted: Wanted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched: list[object] = []

    def watch(path: str, chosen: command.Chosen, shown: Wanted, interval: float) -> None:
        rows = Remote(path, *chosen).look().rows
        watched.extend([[row.id for row in rows], shown, interval])

    monkeypatch.setattr(command, "run", watch)
    assert run(admin_socket, *options, "--watch", "--interval", "2", width=80).exit_code == 0
    assert watched == [ids, wanted, 2.0]


def test_watch_on_a_terminal_says_by_what_it_cannot_sort(admin_socket: Path) -> None:
    result = run(admin_socket, "--watch", "--sort-by", "client", width=80)
    assert (result.exit_code, "sorts by age_seconds" in result.stderr) == (2, True)
