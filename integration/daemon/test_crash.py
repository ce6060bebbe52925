"""SIGKILL: the next daemon takes over what is there; or `userproxy cleanup` removes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from integration.daemon.traces import assert_same, crash, kernel_state
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

URL = f"http://{SERVER_SERVICE.frontend}"


def answers(lab: Lab) -> bool:
    return lab.exec("client", "curl", "-sS", "--max-time", "1", URL, check=False).returncode == 0


def test_the_next_daemon_serves_within_two_seconds_by_the_same_rules(lab: Lab) -> None:
    lab.start_daemon("host1")
    assert answers(lab)
    state = kernel_state(lab)
    crash(lab)
    assert_same(kernel_state(lab), state)
    began = time.monotonic()
    again = lab.start_daemon("host1")
    seconds = time.monotonic() - began
    print(f"after SIGKILL and a start: served again within {seconds:.1f} s")
    assert answers(lab)
    assert_same(kernel_state(lab), state)
    assert "adopted=1" in again.output()
    assert seconds < 5  # under 2 s, where nothing else runs on the machine


def test_what_was_deleted_meanwhile_is_removed_by_the_next_daemon(lab: Lab) -> None:
    lab.start_daemon("host1")
    crash(lab)
    name = f"{SERVER_SERVICE.name}.yaml"
    lab.remove_manifest(name)
    lab.start_daemon("host1")
    wait_until("its rules are gone", lambda: SERVER_SERVICE.frontend.ip not in rules(lab), 5.0)
    assert SERVER_SERVICE.frontend.ip not in lab.exec("host1", "ip", "route", "show", "table", "all").stdout


def test_cleanup_after_a_crash_leaves_no_trace(lab: Lab) -> None:
    before = kernel_state(lab)
    lab.start_daemon("host1")
    crash(lab)
    assert kernel_state(lab) != before
    lab.userproxy("host1", "cleanup")
    assert_same(kernel_state(lab), before)
    lab.userproxy("host1", "cleanup")
    assert_same(kernel_state(lab), before)


def test_a_second_daemon_and_a_cleanup_are_refused_while_one_works(lab: Lab) -> None:
    first = lab.start_daemon("host1")
    state = kernel_state(lab)
    commands = (
        ("run", "--manifests", str(lab.manifests), "--admin-socket", str(lab.directory / "second.sock")),
        ("run", "--manifests", str(lab.manifests)),
        ("cleanup",),
    )
    for command in commands:
        refused = lab.exec("host1", "userproxy", *command, check=False)
        assert refused.returncode == 1, command
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert str(first.pid) in refused.stderr
    assert_same(kernel_state(lab), state)
    assert answers(lab)


def rules(lab: Lab) -> str:
    return lab.exec("host1", "nft", "list", "ruleset").stdout
