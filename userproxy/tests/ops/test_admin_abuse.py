"""The admin socket, with clients that misbehave: none of them costs the daemon or another client anything."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.ops import protocol
from userproxy.ops.admin import Limits
from userproxy.ops.client import AdminClient, AdminError
from userproxy.tests.ops.daemon import STATUS, MadeUpView, connection, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def raw(path: Path) -> Iterator[socket.socket]:
    """A client that says what it likes, greeted already."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        assert isinstance(answer(client), protocol.Hello)
        yield client


def answer(client: socket.socket) -> protocol.Answer | None:
    """The next message, or None if the daemon hung up."""
    header = received(client, 4)
    return protocol.decode_answer(received(client, int.from_bytes(header, "big"))) if header else None


def received(client: socket.socket, length: int) -> bytes:
    parts = b""
    while len(parts) < length:
        try:
            part = client.recv(length - len(parts))
        except ConnectionResetError:  # it hung up before it had read everything
            part = b""
        if not part:
            return b""
        parts += part
    return parts


def refusal(client: socket.socket) -> str:
    error = answer(client)
    assert isinstance(error, protocol.Error)
    assert answer(client) is None
    return error.message


def still_answers(path: Path) -> bool:
    with AdminClient(path) as client:
        return client.status() == STATUS


def padded(length: int) -> bytes:
    """A status request of exactly so many bytes."""
    request = b'{"type":"status"}'
    return length.to_bytes(4, "big") + request.ljust(length)


def test_a_request_may_be_as_long_as_the_limit(tmp_path: Path) -> None:
    with running(tmp_path / "s"), raw(tmp_path / "s") as client:
        client.sendall(padded(protocol.MAX_REQUEST))
        assert answer(client) == protocol.StatusAnswer(STATUS)
        assert answer(client) == protocol.End()


def test_and_no_longer(tmp_path: Path) -> None:
    with running(tmp_path / "s"):
        with raw(tmp_path / "s") as client:
            client.sendall((protocol.MAX_REQUEST + 1).to_bytes(4, "big"))
            assert "65537 bytes, where 1 to 65536 are allowed" in refusal(client)
        assert still_answers(tmp_path / "s")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"\xff\xff\xff\xff", "4294967295 bytes"),
        (b"\0\0\0\0", "0 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "1195725856 bytes"),
        (b"\0\0\0\x03abc", "malformed"),
        (b'\0\0\0\x0f{"type":"jump"}', "'jump'"),
        (b'\0\0\0\x35{"type":"connections","filter":{"client":"elsewhere"}}', "'elsewhere' is not an IP"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(tmp_path: Path, sent: bytes, told: str) -> None:
    with running(tmp_path / "s"):
        with raw(tmp_path / "s") as client:
            client.sendall(sent)
            message = refusal(client)
        assert told in message
        assert "use the same version on both sides" in message
        assert still_answers(tmp_path / "s")


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x11", b'\0\0\0\x11{"type":'])
def test_half_a_request_or_silence_ends_when_the_time_is_over(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path / "s", limits=Limits(request_seconds=0.05)), raw(tmp_path / "s") as client:
        client.sendall(sent)
        assert answer(client) is None


@pytest.mark.parametrize("sent", [b"", b"\0\0", b'\0\0\0\x11{"type":'])
def test_so_does_one_that_leaves_in_the_middle(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path / "s", limits=Limits(clients=1)):
        for _ in range(20):
            with contextlib.suppress(AssertionError), raw(tmp_path / "s") as client:
                client.sendall(sent)
        _until(lambda: still_answers(tmp_path / "s"))


def test_one_that_does_not_read_is_hung_up_on(tmp_path: Path) -> None:
    view = MadeUpView([connection(number) for number in range(5000)])
    with (
        running(tmp_path / "s", view, Limits(clients=1, write_seconds=0.05)),
        raw(tmp_path / "s") as client,
    ):
        client.sendall(protocol.request_frame(protocol.GetConnections()))
        _until(lambda: still_answers(tmp_path / "s"))  # there is room for one: so the other is gone
        while client.recv(65536):
            pass


def test_one_client_more_than_the_limit_is_told_so(tmp_path: Path) -> None:
    with running(tmp_path / "s", limits=Limits(clients=3)), contextlib.ExitStack() as clients:
        inside = [clients.enter_context(AdminClient(tmp_path / "s")) for _ in range(3)]
        with pytest.raises(AdminError, match="already serves 3 admin clients: try again"):
            clients.enter_context(AdminClient(tmp_path / "s"))
        assert [client.status() for client in inside] == [STATUS] * 3


def test_a_thousand_connections_leave_the_daemon_as_it_was(tmp_path: Path) -> None:
    with running(tmp_path / "s", limits=Limits(clients=8)):
        for _ in range(4):
            with contextlib.ExitStack() as crowd:
                for _ in range(250):
                    crowd.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "s"))
        _until(lambda: still_answers(tmp_path / "s"))


def test_random_bytes_never_end_the_daemon() -> None:
    with TemporaryDirectory() as directory, running(Path(directory) / "s"):
        path = Path(directory) / "s"

        @given(st.binary(max_size=300), st.booleans(), st.booleans())
        def abuse(sent: bytes, framed: bool, reads: bool) -> None:
            with raw(path) as client:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.sendall(len(sent).to_bytes(4, "big") + sent if framed else sent)
                    client.shutdown(socket.SHUT_WR)
                while reads and answer(client) is not None:
                    pass

        abuse()
        assert still_answers(path)


def _until(true: Callable[[], bool]) -> None:
    """Try again while the daemon has not noticed yet that the others left."""
    for _ in range(10_000):
        with contextlib.suppress(AdminError):
            assert true()
            return
    pytest.fail("the daemon does not take clients any more")
