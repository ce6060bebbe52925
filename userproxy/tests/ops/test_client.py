"""What a user reads when a daemon cannot be asked: one line, with the remedy."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.ops.admin.messages import API
from userproxy.ops.client import AdminClient, AdminError
from userproxy.tests.ops.daemon import STATUS, connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY = msgspec.json.encode(STATUS)


def answer(body: bytes, *, api: int | None = API, status: str = "200 OK", length: int | None = None) -> bytes:
    head = [f"HTTP/1.1 {status}", "Server: userproxy/9.9.9", f"Content-Length: {length or len(body)}"]
    if api is not None:
        head.append(f"Userproxy-Api: {api}")
    return "\r\n".join([*head, "", ""]).encode() + body


def told(path: Path, ask: Callable[[AdminClient], object], timeout: float = 10.0) -> str:
    with pytest.raises(AdminError) as failed, AdminClient(path, timeout) as client:
        ask(client)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def says(path: Path, said: bytes, *, hang_up: bool = True) -> Callable[[AdminClient], object]:
    """A daemon that says just this to one client; returns how to ask it for its status."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen()

    def speak() -> None:
        # Who asks may hang up in the middle.
        with listener, listener.accept()[0] as client, contextlib.suppress(ConnectionError):
            client.sendall(said)
            if hang_up:
                client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass

    threading.Thread(target=speak).start()
    return AdminClient.status


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
    class Denied(socket.socket):
        def connect(self, _address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Denied)
    allowed = told(tmp_path / "s", AdminClient.status)
    assert allowed == f"may not open {tmp_path}/s: run as root, or as the daemon's user"


@pytest.mark.parametrize(("speaks", "age"), [(0, "older"), (API + 1, "newer")])
def test_a_daemon_of_another_time(tmp_path: Path, speaks: int, age: str) -> None:
    assert told(tmp_path / "s", says(tmp_path / "s", answer(BODY, api=speaks))) == (
        f"the daemon at {tmp_path}/s is {age} (userproxy 9.9.9) than this command (0.1.0): "
        "use the same version on both sides"
    )


@pytest.mark.parametrize("cut", [0, 4, 30, 60, len(answer(BODY)) - 1])
def test_a_connection_that_is_lost_in_the_middle(tmp_path: Path, cut: int) -> None:
    said = told(tmp_path / "s", says(tmp_path / "s", answer(BODY)[:cut]))
    lost = f"lost the connection to {tmp_path}/s: see the daemon's log, and try again"
    assert said == lost or (cut < len(answer(BODY)) - 1 and "is it a daemon of this version" in said)


@pytest.mark.parametrize("rest", [b"", b"5\r\n{", b"5\r\n{}\n{}\r\n", b"5\r\n{}\n{}\r\n0\r\n\r\n"])
def test_a_list_that_ends_early_is_told(tmp_path: Path, rest: bytes) -> None:
    row = msgspec.json.encode(connection()) + b"\n"
    head = f"HTTP/1.1 200 OK\r\nUserproxy-Api: {API}\r\nTransfer-Encoding: chunked\r\n\r\n{len(row):x}\r\n"
    said = head.encode() + row + b"\r\n" + rest
    says(tmp_path / "s", said)
    with AdminClient(tmp_path / "s") as client:
        rows = client.connections()
        assert next(rows) == connection()
        with pytest.raises(AdminError, match=r"lost the connection|is it a daemon of this version"):
            list(rows)


def test_a_silent_daemon(tmp_path: Path) -> None:
    ask = says(tmp_path / "s", b"HTTP/1.1 200 OK\r\n", hang_up=False)
    assert "does not answer within 0.05 s" in told(tmp_path / "s", ask, timeout=0.05)


def test_a_daemon_that_does_not_even_accept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(os.fspath(path))
        listener.listen(0)
        first.connect(os.fspath(path))
        assert "does not answer within 0.05 s" in told(path, AdminClient.status, timeout=0.05)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        answer(BODY, api=None),
        answer(b"{}"),
        answer(b"no JSON"),
        answer(b"[" * 60_000),
        answer(b"x" * 2_000_000),
        answer(b"<html>", status="502 Bad Gateway"),
    ],
    ids=["ssh", "no API", "no row", "no JSON", "deep", "long", "an error"],
)
def test_something_else_answers(tmp_path: Path, said: bytes) -> None:
    assert "is it a daemon of this version, userproxy 0.1.0?" in told(
        tmp_path / "s", says(tmp_path / "s", said)
    )


def test_a_row_without_end_is_not_waited_for(tmp_path: Path) -> None:
    says(tmp_path / "s", answer(b"x" * 2_000_000))
    with AdminClient(tmp_path / "s") as client, pytest.raises(AdminError, match="a row of more than"):
        list(client.connections())


def test_what_the_daemon_refuses_is_its_error_and_remedy(tmp_path: Path) -> None:
    body = b'{"error": "no", "remedy": "do\\nthis"}'
    ask = says(tmp_path / "s", answer(body, status="404 Not Found"))
    assert told(tmp_path / "s", ask) == "no: do this"


def test_fields_that_a_newer_daemon_added_do_no_harm(tmp_path: Path) -> None:
    row = {**msgspec.to_builtins(connection()), "colour": "green"}
    says(tmp_path / "s", answer(msgspec.json.encode(row) + b"\n"))
    with AdminClient(tmp_path / "s") as client:
        assert list(client.connections()) == [connection()]
