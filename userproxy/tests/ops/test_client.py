"""What a user reads when a daemon cannot be asked: one line, with the remedy."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.ops import protocol
from userproxy.ops.client import AdminClient, AdminError
from userproxy.tests.ops.daemon import connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HELLO = protocol.answer_frame(protocol.Hello(protocol.PROTOCOL, "0.1.0"))


def told(path: Path, ask: Callable[[AdminClient], object], timeout: float = 10.0) -> str:
    with pytest.raises(AdminError) as failed, AdminClient(path, timeout) as client:
        ask(client)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def says(path: Path, *frames: bytes, hang_up: bool = True) -> Callable[[AdminClient], object]:
    """A daemon that says just this to one client; returns how to ask it for its status."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen()

    def speak() -> None:
        with listener, listener.accept()[0] as client:
            client.sendall(b"".join(frames))
            if hang_up:
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(4096):
                    pass

    threading.Thread(target=speak).start()
    return lambda client: client.status()


@pytest.mark.parametrize("stale", [False, True])
def test_no_daemon(tmp_path: Path, stale: bool) -> None:
    path = tmp_path / "s"
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.fspath(path))
    assert told(path, AdminClient.status) == (
        f"no daemon at {path}: start one with `userproxy run`, or name its socket with --admin-socket"
    )


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    assert "AF_UNIX path too long: name the socket" in told(tmp_path / ("s" * 120), AdminClient.status)


def test_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_client: AdminClient) -> None:
        raise PermissionError

    class Denied(socket.socket):
        def connect(self, _address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Denied)
    assert told(tmp_path / "s", denied) == f"may not open {tmp_path}/s: run as root, or as the daemon's user"


@pytest.mark.parametrize(("speaks", "age"), [(0, "older"), (protocol.PROTOCOL + 1, "newer")])
def test_a_daemon_of_another_time(tmp_path: Path, speaks: int, age: str) -> None:
    ask = says(tmp_path / "s", protocol.answer_frame(protocol.Hello(speaks, "9.9.9")))
    assert told(tmp_path / "s", ask) == (
        f"the daemon at {tmp_path}/s is {age} (userproxy 9.9.9) than this command (0.1.0): "
        "use the same version on both sides"
    )


@pytest.mark.parametrize("cut", [0, 2, 4, 10, len(HELLO), len(HELLO) + 3, len(HELLO) + 20])
def test_a_connection_that_is_lost_in_the_middle(tmp_path: Path, cut: int) -> None:
    ask = says(tmp_path / "s", (HELLO + protocol.answer_frame(protocol.Error("never told")))[:cut])
    assert told(tmp_path / "s", ask) == (
        f"lost the connection to {tmp_path}/s: see the daemon's log, and try again"
    )


def test_a_silent_daemon(tmp_path: Path) -> None:
    ask = says(tmp_path / "s", HELLO, hang_up=False)
    assert "does not answer within 0.05 s" in told(tmp_path / "s", ask, timeout=0.05)


def test_a_daemon_that_does_not_even_accept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(os.fspath(path))
        listener.listen(0)
        first.connect(os.fspath(path))
        assert "does not answer within 0.05 s" in told(path, AdminClient.status, timeout=0.05)


@pytest.mark.parametrize(
    "frames",
    [
        [b"SSH-2.0-OpenSSH_9.2\r\n"],
        [protocol.answer_frame(protocol.End())],
        [HELLO, b"\0\0\0\x02{}"],
        [HELLO, protocol.answer_frame(protocol.End())],
        [HELLO, protocol.answer_frame(protocol.ConnectionRows([connection()]))],
    ],
)
def test_something_else_answers(tmp_path: Path, frames: list[bytes]) -> None:
    assert "is it a daemon of this version, userproxy 0.1.0?" in told(
        tmp_path / "s", says(tmp_path / "s", *frames)
    )


def test_fields_that_a_newer_daemon_added_do_no_harm(tmp_path: Path) -> None:
    row = {**msgspec.to_builtins(connection()), "colour": "green"}
    body = msgspec.json.encode({"type": "connection-rows", "rows": [row]})
    end = protocol.answer_frame(protocol.End())
    says(tmp_path / "s", HELLO, len(body).to_bytes(4, "big") + body, end)
    with AdminClient(tmp_path / "s") as client:
        assert list(client.connections()) == [connection()]
