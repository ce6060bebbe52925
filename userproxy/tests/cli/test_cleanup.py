"""`userproxy cleanup`."""

from __future__ import annotations

import contextlib
import os
import uuid

import pytest
from click.testing import CliRunner, Result

from userproxy.cli.daemon import Environment
from userproxy.cli.main import cli
from userproxy.control.node_lock import NodeLock, NodeLockedError
from userproxy.netfilter import NetfilterError


@pytest.fixture
def lock_name() -> str:
    return f"userproxy-test-{uuid.uuid4().hex}"


class Kernel:
    """What is in the kernel; it insists on being cleaned while no daemon can start."""

    def __init__(self, lock_name: str, refusal: Exception | None = None) -> None:
        self.lock_name = lock_name
        self.refusal = refusal
        self.traces = ["a table"]

    def remove(self) -> tuple[str, ...]:
        """Remove everything, and tell what that was."""
        if self.refusal is not None:
            raise self.refusal
        with contextlib.suppress(NodeLockedError):
            NodeLock(self.lock_name).acquire()
            pytest.fail("a daemon could start meanwhile")
        found, self.traces = tuple(self.traces), []
        return found


def run(kernel: Kernel, orphans: tuple[int, ...] = ()) -> Result:
    environment = Environment(
        node_lock=lambda: NodeLock(kernel.lock_name),
        end_orphans=lambda: orphans,
        remove_traces=kernel.remove,
    )
    return CliRunner().invoke(cli, ["cleanup"], obj=environment)


def test_it_removes_every_trace_while_no_daemon_can_start(lock_name: str) -> None:
    kernel = Kernel(lock_name)
    result = run(kernel)
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "removed a table\nthis node is clean: no table, route or routing rule of userproxy is left\n",
        "",
    )
    assert kernel.traces == []
    assert run(kernel).stdout == "this node is clean: no table, route or routing rule of userproxy is left\n"
    with NodeLock(lock_name):  # and now one can
        pass


def test_it_ends_the_workers_that_a_daemon_has_left_behind(lock_name: str) -> None:
    result = run(Kernel(lock_name), (17, 42))
    assert result.stdout.splitlines()[:3] == ["ended worker 17", "ended worker 42", "removed a table"]


def test_it_refuses_while_a_daemon_runs_and_removes_nothing(lock_name: str) -> None:
    kernel = Kernel(lock_name)
    with NodeLock(lock_name):
        result = run(kernel, (17,))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"userproxy: another userproxy is at work on this node (pid {os.getpid()}): stop it first\n"
    )
    assert kernel.traces == ["a table"]


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (PermissionError(1, "Operation not permitted"), "may not change the kernel's rules: run as root"),
        (NetfilterError("the table is still there: try again"), "the table is still there: try again"),
    ],
)
def test_what_the_kernel_refuses_is_told(lock_name: str, refusal: Exception, told: str) -> None:
    result = run(Kernel(lock_name, refusal))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"userproxy: {told}\n")
