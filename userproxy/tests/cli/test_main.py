"""The entry point: exit codes, quiet ends, and a start that imports nothing it does not need."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import userproxy.cli
from userproxy import __version__
from userproxy.cli.commands import Command
from userproxy.cli.main import COMMANDS, SECTIONS, cli
from userproxy.tests.ops.daemon import MadeUpView, connection, running

START = "from userproxy.cli.main import main; main()"


def test_help_lists_every_command_and_imports_none() -> None:
    code = f"""
import sys
from userproxy.cli.main import COMMANDS
try:
    {START}
finally:
    assert not [target for target, _ in COMMANDS.values() if target.partition(':')[0] in sys.modules]
"""
    told = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    listed = told.stdout.split("The daemon:\n")[1].splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == list(COMMANDS)


def test_every_command_is_in_a_section() -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_mounted_is_there(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help


def test_help_is_in_sections_of_options_and_ends_with_examples() -> None:
    told = CliRunner().invoke(cli, ["drain", "--help"], terminal_width=100).output
    assert told.split("Options:\n")[1].splitlines()[0].startswith("  --undo ")
    assert told.endswith("  # when it may serve again\n  userproxy drain --undo 10.0.1.2:8080\n")
    told = CliRunner().invoke(cli, ["services", "--help"], terminal_width=100).output
    headings = [line for line in told.splitlines() if line and not line.startswith(" ")]
    assert headings[1:] == ["Filters:", "Output:", "Options:", "Examples:"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_may_be_given(name: str) -> None:
    for command in leaves(cli.get_command(click.Context(cli), name)):
        assert command.examples
        for line, purpose in command.examples:
            assert purpose
            ours = re.search(r"userproxy .*?(?= \| | >| \|\||$)", line)
            assert ours
            assert find(shlex.split(ours[0])[1:]) is command


def find(arguments: list[str]) -> click.Command:
    """The command that is meant, once it has taken the rest of the arguments."""
    context, rest = cli.make_context("userproxy", list(arguments)), arguments
    found: click.Command = cli
    while isinstance(found, click.Group):
        if found.invoke_without_command and (not rest or rest[0].startswith("-")):
            break
        _, command, rest = found.resolve_command(context, rest)
        assert command is not None
        found = command
    found.make_context(found.name, list(rest), parent=context)
    return found


def leaves(command: click.Command | None) -> list[Command]:
    if isinstance(command, click.Group):
        return [leaf for each in command.commands.values() for leaf in leaves(each)]
    assert isinstance(command, Command)
    return [command]


def test_commands_import_nothing_heavy_but_those_that_do_the_work_themselves() -> None:
    heavy = ("uvloop", "asyncio", "pyroute2", "kubernetes_asyncio", "aiohttp", "yaml", "rich", "structlog")
    modules = {path.stem for path in Path(userproxy.cli.__file__).parent.glob("[!_]*.py")}
    light = sorted(modules - {"bench", "config", "lab", "plan", "run", "settings"})
    code = f"""
import importlib, sys
for module in {light}:
    importlib.import_module('userproxy.cli.' + module)
    print(module, *(name for name in {heavy} if name in sys.modules))
"""
    loaded = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.splitlines() == light


def test_the_package_is_the_program_too() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "userproxy", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout == f"userproxy, version {__version__}\n"


def test_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.output) == (0, f"userproxy, version {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["conections"], "userproxy: No such command 'conections': did you mean connections?"),
        (["lab", "upp"], "userproxy lab: No such command 'upp': did you mean up?"),
        (["xyz"], "userproxy: No such command 'xyz'."),
        (
            ["run", "--modee", "x"],
            "userproxy run: No such option '--modee'. (Did you mean one of: '--mode', '--no",
        ),
        (["connections", "--no"], "userproxy connections: No such option '--no'."),
        (["connections", "-o", "xml"], "userproxy connections: Invalid value for '-o'"),
        (["connections", "--interval", "0"], "userproxy connections: Invalid value for '--interval'"),
        (["services", "extra"], "userproxy services: Got unexpected extra argument (extra)"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_with_2(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(cli, arguments, prog_name="userproxy")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(told)
    assert result.stderr.endswith("--help)\n")
    assert result.stderr.count("\n") == 1


def test_no_command_is_wrong_usage_too() -> None:
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2
    assert "The daemon:" in result.stderr


def test_the_socket_may_come_from_the_environment(tmp_path: Path) -> None:
    with running(tmp_path / "s"):
        result = CliRunner().invoke(cli, ["status"], env={"USERPROXY_ADMIN_SOCKET": str(tmp_path / "s")})
    assert result.exit_code == 0


@pytest.mark.parametrize("count", [1, 5000])
def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path, count: int) -> None:
    with running(tmp_path / "s", MadeUpView([connection(number) for number in range(count)])):
        command = [sys.executable, "-c", START, "connections", "--admin-socket", str(tmp_path / "s")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 - ours
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path / "s"), Path("/dev/full").open("w") as full:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", START, "connections", "--admin-socket", str(tmp_path / "s")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "userproxy: cannot write the output: No space left on device: make room\n"
