"""How a control side finds workers, and whom it believes."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from userproxy.worker import door


@pytest.fixture
def prefix() -> str:
    return f"userproxy-test-{uuid.uuid4().hex}-"


def test_every_open_door_is_found_with_its_pid_and_closed_ones_are_not(prefix: str) -> None:
    assert door.knock_everywhere(prefix) == []
    with door.open_door(prefix), door.open_door(prefix):  # two of one pid: of two containers, say
        visits = door.knock_everywhere(prefix)
        assert [pid for _, pid in visits] == [os.getpid(), os.getpid()]
        for visit, _ in visits:
            visit.close()
    assert door.knock_everywhere(prefix) == []


def test_doors_with_another_prefix_are_left_alone(prefix: str) -> None:
    with door.open_door(f"other-{prefix}"):
        assert door.knock_everywhere(prefix) == []


def test_names_that_are_no_text_do_no_harm(prefix: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as foreign, door.open_door(prefix):
        foreign.bind(b"\0" + prefix.encode() + b"\xff\xfe\n@" + os.urandom(8).hex().encode())
        foreign.listen()
        visits = door.knock_everywhere(prefix)
        assert len(visits) == 1
        visits[0][0].close()


def test_a_visitor_of_our_own_user_is_let_in(prefix: str) -> None:
    with door.open_door(prefix) as ours:
        ((visit, _),) = door.knock_everywhere(prefix)
        ours.settimeout(1)
        visitor, _ = ours.accept()
        assert door.is_ours(visitor)
        visit.close()
        visitor.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_door_of_another_user_is_not_believed(prefix: str) -> None:
    gate, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:  # somebody else, who calls a socket of theirs as our workers call theirs
        os.close(theirs)
        os.setresuid(65534, 65534, 65534)
        with door.open_door(prefix):
            os.read(gate, 1)
        os._exit(0)
    os.close(gate)
    try:
        while prefix not in Path("/proc/self/net/unix").read_text(errors="replace"):
            os.sched_yield()
        assert door.knock_everywhere(prefix) == []
    finally:
        os.close(theirs)
        os.waitpid(pid, 0)
