"""`userproxy lab` says in one line what is wrong, before it touches anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from userproxy.cli.lab import lab
from userproxy.lab import network
from userproxy.lab.deployment import Lab
from userproxy.lab.network import LabError


def test_exec_in_an_unknown_namespace_lists_those_there_are() -> None:
    result = CliRunner().invoke(lab, ["exec", "server3", "--", "true"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: 'server3' is not in the lab; "
        "there are gateway, host1, host2, server1, client, dns1, server2, dns2\n"
    )


def test_exec_in_a_lab_that_is_not_up_says_how_to_bring_it_up() -> None:
    result = CliRunner().invoke(lab, ["exec", "--name", "never-was", "client", "--", "true"])
    assert result.exit_code == 1
    assert "lab never-was is not up: `userproxy lab up` brings it up" in result.stderr


def test_a_mode_that_does_not_exist_is_wrong_usage() -> None:
    result = CliRunner().invoke(lab, ["up", "--mode", "redirect-to-nowhere"])
    assert result.exit_code == 2
    assert "'redirect-to-host', 'redirect-to-pod'" in result.stderr


def test_a_name_that_could_leave_its_directory_is_refused() -> None:
    with pytest.raises(LabError, match=r"'\.\./etc' cannot name a lab"):
        Lab("../etc")


def test_a_missing_program_is_named_before_anything_is_changed() -> None:
    with pytest.raises(LabError, match="`no-such-program` is not on PATH"):
        network.preflight(["no-such-program"])


def test_only_a_host_is_told_of_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERPROXY_ADMIN_SOCKET", "/elsewhere.sock")
    here = Lab("here")
    assert here.environment("host1")["USERPROXY_ADMIN_SOCKET"] == "/run/userproxy/lab/here/host1.sock"
    assert "USERPROXY_ADMIN_SOCKET" not in here.environment("client")
