"""What became of connections, as it is printed."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner, Result

from userproxy.cli.daemon import Environment
from userproxy.cli.main import cli
from userproxy.cli.timeline import meaning, story
from userproxy.model.address import Address
from userproxy.model.endings import ENDINGS, Reason
from userproxy.model.filter import ConnectionFilter, RecordFilter
from userproxy.model.records import Timeline, row_of
from userproxy.model.service import Protocol, ServicePortName
from userproxy.tests.ops.daemon import MadeUpOperator, MadeUpView, running
from userproxy.tests.records import BEGAN, RECORD, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = dt.datetime.fromtimestamp(BEGAN + 60, dt.UTC)


class Daemon:
    """A made-up one, and the command line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.view = MadeUpView([])
        self.operator = MadeUpOperator()

    def run(self, *arguments: str, width: int | None = None) -> Result:
        """Ask it."""
        environment = Environment(terminal_width=lambda: width, now=lambda: NOW)
        socket = {"USERPROXY_ADMIN_SOCKET": str(self.path)}
        return CliRunner().invoke(cli, arguments, obj=environment, env=socket)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "s")
    with running(made.path, made.view, operator=made.operator):
        yield made


def test_those_that_are_over_are_listed_the_latest_last(daemon: Daemon) -> None:
    daemon.view.record_rows = [
        record(id="1-2", ended_at="2026-11-27T12:03:09.000+00:00", reason="killed", ended_by="operator"),
        record(id="1-1"),
    ]
    result = daemon.run("connections", "--ended")
    assert (result.exit_code, result.stderr) == (0, "")
    header, first, second = result.stdout.splitlines()
    assert header.split() == [
        *("ENDED", "ID", "SERVICE", "CLIENT", "FRONTEND", "BACKEND", "LIVED", "UP", "DOWN", "BY", "REASON")
    ]
    assert first.split()[:2] == ["2026-11-27T12:03:04Z", "1-1"]
    assert second.split()[-2:] == ["operator", "killed"]


def test_what_is_asked_for_reaches_the_daemon(daemon: Daemon) -> None:
    options = (
        *("--ended", "--since", "10m", "--reason", "client-reset", "--reason", "backend-reset"),
        *("--service", "default/web", "--client", "10.0.0.0/14", "--backend", "10.0.1.2"),
    )
    assert daemon.run("connections", *options).exit_code == 0
    assert daemon.view.asked_for == [
        RecordFilter(
            connections=ConnectionFilter(
                service=ServicePortName("default", "web"),
                client="10.0.0.0/14",
                backend=Address("10.0.1.2", 0),
            ),
            since=NOW.timestamp() - 600,
            reasons=(Reason.CLIENT_RESET, Reason.BACKEND_RESET),
            live=False,
        )
    ]


@pytest.mark.parametrize(
    ("since", "seconds"),
    [
        ("90s", 90),
        ("2h", 7200),
        ("1d", 86400),
        ("2026-11-27T12:03:30Z", 30),
        ("2026-11-27T13:03:30+01:00", 30),
    ],
)
def test_since_is_how_long_ago_or_when(daemon: Daemon, since: str, seconds: float) -> None:
    assert daemon.run("connections", "--ended", "--since", since).exit_code == 0
    assert daemon.view.asked_for[0].since == NOW.timestamp() - seconds


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since", "5m"], "add --ended"),
        (["--reason", "killed"], "add --ended"),
        (["--ended", "--watch"], "leave it or --ended out"),
        (["--ended", "--since", "yesterday"], "'yesterday' is neither how long ago"),
        (["--ended", "--reason", "boredom"], "'boredom' is not one of"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(daemon: Daemon, arguments: list[str], told: str) -> None:
    result = daemon.run("connections", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_person_is_told_what_the_reasons_mean(daemon: Daemon) -> None:
    result = daemon.run("connections", "--ended", width=120)
    assert f"backend-reset: {ENDINGS[Reason.BACKEND_RESET].text}" in result.stderr


def test_programs_get_every_field(daemon: Daemon) -> None:
    (row,) = json.loads(daemon.run("connections", "--ended", "-o", "json").stdout)
    assert row == json.loads(msgspec.json.encode(record()))


def test_the_story_of_one(daemon: Daemon) -> None:
    result = daemon.run("connections", "show", "18253-4")
    assert daemon.view.asked_for == [RecordFilter(id="18253-4")]
    assert result.stdout.splitlines() == [
        "18253-4  TCP  default/server-service:http  ended: backend-reset",
        "",
        "  client    10.0.1.3:36854",
        "  frontend  10.3.241.152:80",
        "  listener  10.100.0.2:10400",
        "  source    10.100.0.2:50001",
        "  backend   10.0.2.2:8080",
        "  bytes     83B up, 200B down",
        "",
        "  2026-11-27T12:03:00.000+00:00  accepted from 10.0.1.3:36854",
        "                        +0.1 ms  dialled 10.0.1.2:8080: refused after 0.4 ms",
        "                        +0.2 ms  first bytes of the client",
        "                        +0.6 ms  dialled 10.0.2.2:8080: answered after 1 ms",
        "                       +10.2 ms  first bytes of the backend",
        "                        +1.50 s  the client finished sending",
        f"  2026-11-27T12:03:04.250+00:00  {ENDINGS[Reason.BACKEND_RESET].text} (it lived 4.25 s)",
    ]


def test_the_story_of_a_session_and_of_one_that_lives() -> None:
    timeline = Timeline(first_up=0.0, first_down=0.002, asked=2, answered=1)
    changed = {"protocol": Protocol.UDP, "reason": None, "state": "replied", "timeline": timeline}
    told = story(row_of(msgspec.structs.replace(RECORD, **changed)))
    assert "18253-4  UDP  default/server-service:http  live: replied" in told
    assert "83B up, 200B down, in 2 and 1 datagrams" in told
    assert "first datagram of the backend" in told
    assert told.endswith("it lives, for 4s now")


def test_a_reason_of_another_version_is_told_as_it_is() -> None:
    assert meaning("boredom") == "boredom"


def test_one_that_is_not_known_is_a_failure_with_a_way_on(daemon: Daemon) -> None:
    daemon.view.record_rows = []
    result = daemon.run("connections", "show", "1-1")
    assert result.exit_code == 1
    assert "no connection 1-1 is known: see `userproxy connections --ended`" in result.stderr


def test_who_was_behind_an_address(daemon: Daemon) -> None:
    live = record(id="1-9", reason="", ended_by="", ended_at="", state="established")
    daemon.view.record_rows = [live, record()]
    result = daemon.run("who", "10.100.0.2:50001")
    wanted = ConnectionFilter(source=Address("10.100.0.2", 50001))
    assert daemon.view.asked_for == [RecordFilter(connections=wanted)]
    _, former, now = result.stdout.splitlines()
    assert former.split()[:3] == ["10.100.0.2:50001", "10.0.1.3:36854", "default/server-service:http"]
    assert now.endswith("live: established")


def test_nobody_was(daemon: Daemon) -> None:
    daemon.view.record_rows = []
    result = daemon.run("who", "10.100.0.2:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nobody is known to have come as 10.100.0.2:1" in result.stderr


def test_the_log_level_is_shown_and_set(daemon: Daemon) -> None:
    assert daemon.run("log-level").stdout == "info\n"
    assert daemon.run("log-level", "debug").stdout == "debug\n"
    assert daemon.operator.level == "debug"
    assert daemon.run("log-level", "loud").exit_code == 2
