"""What a process gives up it does not have any more: seen in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from userproxy.worker.privileges import CONTROL, Capability

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
MASK = sum(1 << each for each in CONTROL)


def status_after(program: str) -> dict[str, str]:
    """What the kernel says of a process that has run this, with `privileges` at hand."""
    lines = ["import os, pathlib", "from userproxy.worker import privileges", program]
    lines.append("print(pathlib.Path('/proc/self/status').read_text())")
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in done.stdout.splitlines())
    }


def test_who_gives_up_all_has_nothing_and_can_get_nothing() -> None:
    status = status_after("privileges.give_up_all()")
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@AS_ROOT
def test_root_is_nobody_after_that_and_out_of_reach_of_every_capability() -> None:
    status = status_after("privileges.give_up_all()")
    assert [int(status[each], 16) for each in SETS] == [0] * 5
    (user,) = set(status["Uid"].split())
    (group,) = set(status["Gid"].split())
    assert 60578 <= int(user) <= 61183
    assert group == user
    assert status["Groups"] == ""


@AS_ROOT
@pytest.mark.parametrize("missing", [Capability.SETUID, Capability.SETGID, Capability.KILL])
def test_without_what_it_takes_it_stays_root_without_capabilities(missing: Capability) -> None:
    status = status_after(
        f"privileges.keep(privileges.CONTROL - {{privileges.Capability.{missing.name}}})\n"
        "privileges.give_up_all()"
    )
    assert set(status["Uid"].split()) == {"0"}
    assert [int(status[each], 16) for each in SETS] == [0] * 5


@AS_ROOT
def test_where_there_is_no_other_user_it_stays_root_without_capabilities() -> None:
    status = status_after(
        "import ctypes\n"
        "assert ctypes.CDLL(None).unshare(0x10000000) == 0\n"
        "pathlib.Path('/proc/self/setgroups').write_text('deny')\n"
        "pathlib.Path('/proc/self/uid_map').write_text('0 0 1')\n"
        "pathlib.Path('/proc/self/gid_map').write_text('0 0 1')\n"
        "privileges.give_up_all()"
    )
    assert set(status["Uid"].split()) == {"0"}
    assert [int(status[each], 16) for each in SETS] == [0] * 5


@AS_ROOT
def test_the_control_side_keeps_what_it_needs_and_whatever_it_executes_gets_no_more() -> None:
    status = status_after(
        "privileges.keep(privileges.CONTROL)\n"
        "import sys\n"
        "if not os.environ.get('ANEW'):\n"
        "    os.environ['ANEW'] = '1'\n"
        "    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])"
    )
    assert {int(status[each], 16) for each in ("CapPrm", "CapEff", "CapBnd")} == {MASK}
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_nobody_gains_by_keeping() -> None:
    status = status_after(
        "privileges.give_up_all()\nassert privileges.keep(privileges.CONTROL) == frozenset()"
    )
    assert int(status["CapPrm"], 16) == 0


@pytest.mark.parametrize("call", ["give_up_all()", "keep(privileges.CONTROL)"])
def test_a_refusal_is_one_line(call: str) -> None:
    status_after(
        "def refuse(*_):\n"
        "    raise PermissionError(1, 'Operation not permitted')\n"
        "privileges._write = refuse\n"
        "try:\n"
        f"    privileges.{call}\n"
        "except privileges.PrivilegesError as error:\n"
        "    assert str(error) == 'privileges cannot be given up: [Errno 1] Operation not permitted', error\n"
        "else:\n"
        "    raise AssertionError"
    )
