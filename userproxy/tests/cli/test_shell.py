"""`userproxy completion` and `userproxy man`."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from userproxy.cli.main import COMMANDS, cli
from userproxy.config import declared
from userproxy.tests.ops.daemon import MadeUpView, connection, running

if TYPE_CHECKING:
    from pathlib import Path

START = [sys.executable, "-c", "from userproxy.cli.main import main; main()"]


def completed(words: str, admin_socket: Path | str = "/nowhere") -> list[str]:
    """What bash would be offered in the place of the last word."""
    environment = {
        "USERPROXY_ADMIN_SOCKET": str(admin_socket),
        "_USERPROXY_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    code = "import sys; sys.argv[0] = 'userproxy'; from userproxy.cli.main import main; main()"
    told = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stderr == ""
    return [line.partition(",")[2] for line in told.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("userproxy con", ["config", "connections"]),
        ("userproxy --ver", ["--version"]),
        ("userproxy config s", ["show"]),
        ("userproxy run --mode ", ["redirect-to-host", "redirect-to-pod", "steered"]),
        ("userproxy run --m", ["--manifests", "--mode", "--metrics-bind-address", "--metrics-per-service"]),
        ("userproxy services --sort-by backends", ["backends_up", "backends"]),
        ("userproxy backends --state e", ["ejected"]),
    ],
)
def test_what_may_stand_there_is_offered(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("userproxy connections --service default/", ["default/server-service", "default/empty"]),
        ("userproxy services -n d", ["default"]),
        ("userproxy drain 10.0.", ["10.0.1.2", "10.0.2.2"]),
        ("userproxy kill ", ["1", "2"]),
    ],
)
def test_what_the_daemon_has_is_offered(tmp_path: Path, words: str, offered: list[str]) -> None:
    with running(tmp_path / "s", MadeUpView([connection(1), connection(2)])):
        assert completed(words, tmp_path / "s") == offered
    assert completed(words, tmp_path / "s") == [], "there is no daemon any more"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    told = CliRunner().invoke(cli, ["completion", shell])
    assert told.exit_code == 0
    assert f"_USERPROXY_COMPLETE={shell}_complete" in told.stdout


def test_bash_takes_its_script() -> None:
    script = CliRunner().invoke(cli, ["completion", "bash"]).stdout
    told = subprocess.run(  # noqa: S603 - the script is ours
        ["bash", "-c", f"{script}\ncomplete -p userproxy"],  # noqa: S607 - found on PATH, as a user's shell would
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith("complete ")
    assert told.stderr == ""


def test_the_manual_page_has_every_command_option_and_example() -> None:
    page = CliRunner().invoke(cli, ["man"]).stdout
    plain = page.replace("\\-", "-").replace("\\&", "").replace("\\fB", "").replace("\\fR", "")
    assert page.startswith('.TH USERPROXY 8 "" "userproxy ')
    for name in COMMANDS:
        assert f"\n.SS userproxy {name} " in plain
    for setting in declared():
        assert f"\n.B --{setting.key} " in plain
    assert "\nuserproxy kill 18253-4\n" in plain
    assert "proxy-mode" not in plain, "hidden"


def test_the_manual_page_asks_nothing_of_roff_but_what_it_knows() -> None:
    page = CliRunner().invoke(cli, ["man"]).stdout
    requests = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert requests == {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".nf", ".fi", ".RS", ".RE"}
    assert set(re.findall(r"\\(?:f.|.)", page)) <= {"\\-", "\\fB", "\\fR", "\\&", "\\e"}


def test_the_manual_page_does_not_depend_on_the_terminal() -> None:
    pages = {CliRunner().invoke(cli, ["man"], terminal_width=width).stdout for width in (40, 200)}
    assert len(pages) == 1
