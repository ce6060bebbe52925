"""One userproxy for each node."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from userproxy.control.node_lock import NodeLock, NodeLockedError

HOLD = """
import sys
from userproxy.control.node_lock import NodeLock
with NodeLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def name() -> str:
    return f"userproxy-test-{uuid.uuid4().hex}"


def test_the_second_is_told_who_holds_it(name: str) -> None:
    with (
        subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", HOLD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(NodeLockedError) as refused:
            NodeLock(name).acquire()
        assert refused.value.pid == holder.pid
        assert str(refused.value) == (
            f"another userproxy is at work on this node (pid {holder.pid}): stop it first"
        )
        holder.kill()
        holder.wait()
    with NodeLock(name):  # a dead holder holds nothing
        pass


def test_it_can_be_had_again_once_released(name: str) -> None:
    first, second = NodeLock(name), NodeLock(name)
    first.acquire()
    with pytest.raises(NodeLockedError, match=str(os.getpid())):
        second.acquire()
    first.release()
    first.release()
    with second:
        pass


def test_asking_often_ends_in_the_same_refusal(name: str) -> None:
    with NodeLock(name):
        refusals = []
        for _ in range(200):
            with pytest.raises(NodeLockedError) as refused:
                NodeLock(name).acquire()
            refusals.append(str(refused.value))
    assert refusals[0] == (f"another userproxy is at work on this node (pid {os.getpid()}): stop it first")
    assert refusals[-1] == (
        "another userproxy is at work on this node (its pid is not visible from here): stop it first"
    )
