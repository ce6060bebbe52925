"""How a control side finds workers, and whom it believes."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from userproxy.worker import rendezvous


@pytest.fixture
def prefix() -> str:
    return f"userproxy-test-{uuid.uuid4().hex}-"


def test_every_open_door_is_found_with_its_pid_and_closed_ones_are_not(prefix: str) -> None:
    assert rendezvous.connect_to_all(prefix) == []
    # Two of one pid, as in two containers.
    with rendezvous.listen(prefix), rendezvous.listen(prefix):
        visits = rendezvous.connect_to_all(prefix)
        assert [pid for _, pid in visits] == [os.getpid(), os.getpid()]
        for visit, _ in visits:
            visit.close()
    assert rendezvous.connect_to_all(prefix) == []


def test_doors_with_another_prefix_are_left_alone(prefix: str) -> None:
    with rendezvous.listen(f"other-{prefix}"):
        assert rendezvous.connect_to_all(prefix) == []


def test_names_that_are_no_text_do_no_harm(prefix: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as foreign, rendezvous.listen(prefix):
        foreign.bind(b"\0" + prefix.encode() + b"\xff\xfe\n@" + os.urandom(8).hex().encode())
        foreign.listen()
        visits = rendezvous.connect_to_all(prefix)
        assert len(visits) == 1
        visits[0][0].close()


def test_a_visitor_of_our_own_user_is_let_in(prefix: str) -> None:
    with rendezvous.listen(prefix) as ours:
        ((visit, _),) = rendezvous.connect_to_all(prefix)
        ours.settimeout(1)
        visitor, _ = ours.accept()
        assert rendezvous.is_ours(visitor)
        visit.close()
        visitor.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_door_of_another_user_is_not_believed(prefix: str) -> None:
    gate, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:  # somebody else, who calls a socket of theirs as our workers call theirs
        os.close(theirs)
        os.setresuid(65534, 65534, 65534)
        with rendezvous.listen(prefix):
            os.read(gate, 1)
        os._exit(0)
    os.close(gate)
    try:
        while prefix not in Path("/proc/self/net/unix").read_text(errors="replace"):
            os.sched_yield()
        assert rendezvous.connect_to_all(prefix) == []
    finally:
        os.close(theirs)
        os.waitpid(pid, 0)
