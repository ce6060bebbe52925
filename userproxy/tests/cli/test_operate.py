"""`userproxy kill` and `userproxy drain`: what is asked of the daemon, and what a person is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from userproxy.cli.main import cli
from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.service import ServicePortName
from userproxy.tests.ops.daemon import MadeUpOperator, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Shell:
    """Runs commands against a made-up daemon."""

    def __init__(self, admin_socket: Path) -> None:
        self.operator = MadeUpOperator()
        self._socket = admin_socket

    def run(self, command: str, *arguments: str) -> Result:
        """One command."""
        return CliRunner().invoke(cli, [command, "--admin-socket", str(self._socket), *arguments])


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path / "s")
    with running(tmp_path / "s", operator=made.operator):
        yield made


def test_kill_by_id_says_how_many(shell: Shell) -> None:
    done = shell.run("kill", "4711-1", "4711-2", "4711-1")
    assert (done.exit_code, done.stdout) == (0, "killed 2 connections\n")
    assert shell.operator.killed == [(("4711-1", "4711-2"), ConnectionFilter())]


def test_kill_by_what_connections_have(shell: Shell) -> None:
    done = shell.run("kill", "--service", "default/web", "--client", "10.0.1.0/24", "--backend", "10.0.1.2")
    assert done.exit_code == 0
    meant, carried = "of default/web from 10.0.1.0/24 to 10.0.1.2", "1 relayed, 2 carried by the kernel"
    assert done.stdout == f"killed 3 connections {meant}: {carried}\n"
    wanted = ConnectionFilter(
        service=ServicePortName("default", "web"), client="10.0.1.0/24", backend=Address("10.0.1.2", 0)
    )
    assert shell.operator.killed == [(None, wanted)]


def test_an_id_that_is_not_there_is_told(shell: Shell) -> None:
    done = shell.run("kill", "4711-1", "unknown")
    assert (done.exit_code, done.stdout) == (1, "killed 1 connection\n")
    assert done.stderr.startswith("userproxy: 1 of the IDs is no connection (any more)")


def test_what_the_kernel_carries_and_does_not_end_is_named(shell: Shell) -> None:
    shell.operator.beyond = 2
    done = shell.run("kill", "--service", "default/web")
    assert (done.exit_code, done.stdout) == (1, "killed 1 connection of default/web\n")
    assert done.stderr == (
        "userproxy: 2 carried by the kernel did not end in time: ct-1, ct-2 "
        "(an end that says nothing cannot be reset)\n"
    )


def test_an_id_of_the_kernel_that_does_not_end_is_not_one_that_is_missing(shell: Shell) -> None:
    shell.operator.beyond = 1
    done = shell.run("kill", "4711-1", *(f"ct-{number}" for number in range(12)))
    assert done.stdout == "killed 12 connections: 1 relayed, 11 carried by the kernel\n"
    assert done.exit_code == 1
    assert "of the IDs" not in done.stderr


def test_many_that_do_not_end_are_not_all_named(shell: Shell) -> None:
    shell.operator.beyond = 12
    done = shell.run("kill", *(f"ct-{number}" for number in range(12)))
    assert "12 carried by the kernel did not end in time: ct-0," in done.stderr
    assert "ct-9 and 2 more (" in done.stderr


def test_what_kill_came_to_is_told_to_programs_too(shell: Shell) -> None:
    shell.operator.beyond = 1
    done = shell.run("kill", "--service", "default/web", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "killed": 2,
        "carried": 1,
        "out_of_reach": 1,
        "left": ["ct-1"],
        "problem": "",
    }


@pytest.mark.parametrize("arguments", [(), ("4711-1", "--client", "10.0.1.3")])
def test_kill_must_be_told_what_and_in_one_way(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run("kill", *arguments)
    assert done.exit_code == 2
    assert shell.operator.killed == []


def test_drain_says_what_it_means_and_what_goes_on(shell: Shell) -> None:
    done = shell.run("drain", "10.0.1.2:8080")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "10.0.1.2:8080 gets no new connections: 2 backends",
        "5 connections may go on; to end them: userproxy kill --backend 10.0.1.2:8080",
    ]
    assert shell.operator.drained == [(Address("10.0.1.2", 8080), False)]


def test_drain_says_when_connections_will_be_reset(shell: Shell) -> None:
    done = shell.run("drain", "--end-after", "5m", "10.0.1.2:8080")
    assert done.stdout.splitlines()[1:] == ["5 connections may go on for 300 s, and are reset then"]
    assert shell.operator.end_after == 300.0
    shell.run("drain", "10.0.1.2:8080")
    assert shell.operator.end_after is None


@pytest.mark.parametrize("text", ["5", "-1s", "8d", "soon"])
def test_a_drain_ends_after_a_time_that_it_can_wait(shell: Shell, text: str) -> None:
    done = shell.run("drain", "--end-after", text, "10.0.1.2:8080")
    assert done.exit_code == 2
    assert shell.operator.drained == []


def test_what_is_undone_ends_nothing(shell: Shell) -> None:
    done = shell.run("drain", "--undo", "--end-after", "5m", "10.0.1.2:8080")
    assert (done.exit_code, "exclude each other" in done.stderr) == (2, True)


def test_drain_is_undone(shell: Shell) -> None:
    done = shell.run("drain", "--undo", "10.0.1.2")
    assert (done.exit_code, done.stdout) == (0, "10.0.1.2 may be picked again: 2 backends\n")
    assert shell.operator.drained == [(Address("10.0.1.2", 0), True)]


def test_what_the_daemon_refuses_is_told_in_one_line(shell: Shell) -> None:
    done = shell.run("drain", "10.9.9.9")
    assert (done.exit_code, done.stderr) == (
        1,
        "userproxy: no backend is at 10.9.9.9: see `userproxy backends`\n",
    )


def test_a_backend_is_an_address(shell: Shell) -> None:
    assert shell.run("drain", "server1").exit_code == 2
