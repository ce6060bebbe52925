"""What a control process leaves to the next one in the same process: what was counted, and its sockets."""

from __future__ import annotations

import os
import resource
import socket
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from userproxy.control import handover
from userproxy.control.handover import NOTHING, VARIABLE, Handover
from userproxy.model.address import Address
from userproxy.model.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets

PAST = Counters(connections_opened=100, connections_ended={"killed": 2})
WORKERS = {7: Counters(connections_opened=20), 8: Counters(failed_dials={"refused": 1})}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)


def listener(sockets: Sockets) -> tuple[socket.socket, Address]:
    """A listening socket, and its address."""
    sock = socket.create_server(("127.0.0.1", 0))
    sockets.keep(sock)
    return sock, Address(*sock.getsockname())


def put(content: bytes, pid: int | None = None) -> None:
    """Leave anything."""
    file = os.memfd_create("anything", 0)
    os.write(file, content)
    os.environ[VARIABLE] = f"{file} {os.getpid() if pid is None else pid}"


@pytest.mark.usefixtures("sockets")  # which looks that nothing stays open
def test_what_was_counted_is_taken_as_it_was_left() -> None:
    handover.leave(PAST, WORKERS, {})
    assert handover.take() == Handover(past=PAST, workers=WORKERS)


@pytest.mark.usefixtures("sockets")
def test_it_is_taken_once() -> None:
    handover.leave(PAST, WORKERS, {})
    handover.take()
    assert VARIABLE not in os.environ
    assert handover.take() == NOTHING


def test_a_process_that_was_left_nothing_has_nothing() -> None:
    assert handover.take() == NOTHING


def test_a_listener_is_handed_over_with_whoever_waits_there(sockets: Sockets) -> None:
    sock, address = listener(sockets)
    handover.leave(PAST, {}, {"healthz-bind-address": sock})
    sock.close()  # as execve(2) does
    with socket.create_connection((address.ip, address.port)) as client:
        client.sendall(b"are you well?")
        adopted = handover.adopt(handover.take(), {"healthz-bind-address": address})
        with adopted["healthz-bind-address"] as heir:
            accepted, _ = heir.accept()
            with accepted:
                assert accepted.recv(100) == b"are you well?"


def test_a_listener_outlives_execve_and_is_not_left_to_children_of_the_heir(sockets: Sockets) -> None:
    sock, address = listener(sockets)
    handover.leave(PAST, {}, {"flag": sock})
    left = handover.take()
    assert os.get_inheritable(left.listeners["flag"])
    with handover.adopt(left, {"flag": address})["flag"] as heir:
        assert not os.get_inheritable(heir.fileno())


@pytest.mark.parametrize("wanted", [{}, {"flag": None}, {"flag": Address("127.0.0.1", 1)}])
def test_a_listener_that_is_not_wanted_there_any_more_is_closed(
    sockets: Sockets, wanted: dict[str, Address | None]
) -> None:
    sock, address = listener(sockets)
    handover.leave(PAST, {}, {"flag": sock})
    sock.close()
    assert handover.adopt(handover.take(), wanted) == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.ip, address.port))


def test_listeners_of_a_kind_are_kept_until_it_shows_which_are_wanted(sockets: Sockets) -> None:
    kept, kept_at = listener(sockets)
    dropped, dropped_at = listener(sockets)
    handover.leave(PAST, {}, {f"kind {kept_at}": kept, f"other {dropped_at}": dropped})
    kept.close()
    dropped.close()
    adopted = handover.adopt(handover.take(), {}, kept="kind ")
    assert [*adopted] == [f"kind {kept_at}"]
    with adopted.popitem()[1], socket.create_connection((kept_at.ip, kept_at.port)):
        pass


@pytest.mark.usefixtures("sockets")
def test_a_child_does_not_take_what_is_its_parent_s() -> None:
    file = os.memfd_create("a parent's", 0)
    os.environ[VARIABLE] = f"{file} {os.getppid()}"
    assert handover.take() == NOTHING
    os.close(file)


@pytest.mark.parametrize("value", ["", "x", "x y", "-1 {pid}", "999999 {pid}", "{pid}"])
def test_a_variable_that_makes_no_sense_does_no_harm(value: str) -> None:
    os.environ[VARIABLE] = value.format(pid=os.getpid())
    with capture_logs():
        assert handover.take() == NOTHING


@pytest.mark.usefixtures("sockets")
@pytest.mark.parametrize("content", [b"", b"\xc1", msgspec.msgpack.encode([1]), msgspec.msgpack.encode({})])
def test_content_that_makes_no_sense_is_left_alone(content: bytes) -> None:
    put(content)
    with capture_logs():
        assert handover.take() == NOTHING


@pytest.mark.parametrize(
    "counters", [{"connections_opened": "many"}, {"dial_seconds": {"counts": [1, 2], "total": 0.1}}]
)
def test_another_version_s_counters_are_lost_in_one_line_and_its_listeners_are_not(
    sockets: Sockets, counters: dict[str, object]
) -> None:
    sock, address = listener(sockets)
    fd = os.dup(sock.fileno())
    put(msgspec.msgpack.encode({"past": counters, "workers": {}, "listeners": {"flag": fd}, "new": 1}))
    with capture_logs() as lines:
        left = handover.take()
    assert [line["event"] for line in lines] == ["what the former daemon had counted is lost"]
    assert left == Handover(listeners={"flag": fd})
    handover.adopt(left, {"flag": address})["flag"].close()


@pytest.mark.usefixtures("sockets")
def test_a_later_version_s_news_is_ignored() -> None:
    put(msgspec.msgpack.encode({"past": {"connections_opened": 5, "new_counter": 1}, "new": True}))
    assert handover.take() == Handover(past=Counters(connections_opened=5))


def test_a_descriptor_that_is_no_socket_is_not_adopted() -> None:
    reading, writing = os.pipe()
    try:
        assert handover.adopt(Handover(listeners={"flag": reading, "other": 999_999}), {}) == {}
    finally:
        os.close(reading)
        os.close(writing)


@pytest.fixture
def no_more_files() -> Iterator[None]:
    """This process may open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("sockets", "no_more_files")
def test_a_process_that_may_open_no_more_files_starts_anew_all_the_same() -> None:
    with capture_logs() as lines:
        handover.leave(PAST, {}, {})
    assert [line["error"] for line in lines] == ["Too many open files"]
    assert handover.take() == NOTHING
