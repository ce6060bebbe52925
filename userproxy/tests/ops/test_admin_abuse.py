"""The admin socket, with clients that misbehave: none of them costs the daemon or another client anything."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.ops.client import AdminClient, AdminError
from userproxy.ops.http.clients import Limits
from userproxy.tests.ops.daemon import STATUS, MadeUpView, connection, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from userproxy.model.filter import ConnectionFilter
    from userproxy.model.rows import ConnectionRow

STATUS_REQUEST = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def raw(path: Path) -> Iterator[socket.socket]:
    """A client that says what it likes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        yield client


def post(resource: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {resource} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    if not any(header.startswith("Content-Type") for header in headers):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(resource: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {resource} HTTP/1.1", *(headers or ("Host: localhost",)), "", ""]).encode()


def answer(client: socket.socket) -> tuple[int, dict[str, str]]:
    """The status and the body of an answer."""
    response = http.client.HTTPResponse(client)
    response.begin()
    body = response.read()
    told: dict[str, str] = json.loads(body) if body.startswith(b"{") else {}
    return response.status, told


def rest(client: socket.socket) -> bytes:
    """Whatever else it says before it hangs up."""
    parts = b""
    with contextlib.suppress(ConnectionResetError):  # it hung up before it had read everything
        while part := client.recv(65536):
            parts += part
    return parts


def still_answers(path: Path) -> bool:
    with AdminClient(path) as client:
        return client.status() == STATUS


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (get("/nothing"), 404, "there is no /nothing"),
        (get("/connections/kill"), 405, "/connections/kill takes POST, not GET"),
        (get("/status").replace(b"GET", b"PUT"), 405, "/status takes GET, not PUT"),
        (get("/connections?servce=a/b"), 400, "no parameter 'servce'; it has: service, client"),
        (get("/connections?client=elsewhere"), 400, "client: 'elsewhere' is not an IP"),
        (get("/services?a=b"), 400, "it has: none"),
        (post("/connections/kill", b"{}"), 200, ""),
        (post("/connections/kill", b""), 400, "the body is no {ids, service"),
        (post("/connections/kill", b"["), 400, "the body is no {ids"),
        (post("/connections/kill", b"\xff\xfe"), 400, "the body is no {ids"),
        (post("/connections/kill", b"[" * 60_000), 400, "the body is no {ids"),
        (post("/connections/kill", b'{"servce": "a/b"}'), 400, "unknown field `servce`"),
        (post("/connections/kill", b'{"client": "elsewhere"}'), 400, "'elsewhere' is not an IP"),
        (post("/connections/kill", b'{"ids": "1"}'), 400, "Expected `array"),
        (post("/backends/drain", b'{"backend": "10.9.9.9"}'), 404, "no backend is at 10.9.9.9"),
        (post("/backends/drain", b"{}", "Content-Type: text/plain"), 415, "takes JSON"),
        (post("/backends/drain", b"{}", "Origin: http://evil.example"), 403, "a page of another origin asks"),
        (get("/status", "Host: localhost", "Sec-Fetch-Site: cross-site"), 403, "a page of another origin"),
        (get("/status", "Host: evil.example"), 403, "'evil.example' is no name of this machine"),
        (get("/status", "Host: [::1]:80"), 200, ""),
        (get("/status", "Host: 127.0.0.1"), 200, ""),
        (post("/connections/kill", b"x" * 65_537), 413, "65536"),
    ],
    ids=range(22),
)
def test_each_mistake_has_its_status_and_its_reason(
    tmp_path: Path, sent: bytes, status: int, told: str
) -> None:
    with running(tmp_path / "s"), raw(tmp_path / "s") as client:
        client.sendall(sent)
        got, body = answer(client)
        assert (got, told in body.get("error", "")) == (status, True)
        assert status < 400 or body["remedy"]
        assert still_answers(tmp_path / "s")


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n" + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
    ids=["garbage", "header", "path", "two lengths", "length", "chunk", "version"],
)
def test_what_is_no_request_is_refused_and_leaves_nothing_in_the_log(
    tmp_path: Path, sent: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "s"), raw(tmp_path / "s") as client:
        client.sendall(sent)
        assert rest(client).split(b" ", 2)[1] in (b"400", b"505")
        assert still_answers(tmp_path / "s")
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


def test_a_body_without_end_is_not_taken_in(tmp_path: Path) -> None:
    with running(tmp_path / "s"), raw(tmp_path / "s") as client:
        client.sendall(post("/backends/drain", b"").replace(b"Length: 0", b"Length: 1000000000"))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 10_000_000:
                sent += client.send(b"x" * 65536)
        assert sent < 1_000_000
        assert b" 413 " in rest(client)
        assert still_answers(tmp_path / "s")


class Held(MadeUpView):
    """Never gets to the end of its connections."""

    async def connections(self, wanted: ConnectionFilter, /) -> AsyncIterator[list[ConnectionRow]]:
        """Rows without end."""
        while True:
            async for rows in super().connections(wanted):
                yield rows


def test_nor_are_requests_without_end_while_one_is_answered(tmp_path: Path) -> None:
    with running(tmp_path / "s", Held()), raw(tmp_path / "s") as client:
        client.sendall(get("/connections"))
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 10_000_000:
                client.settimeout(0.2 if sent else 10)
                sent += client.send(STATUS_REQUEST * 1000)
        assert sent < 1_000_000
        assert still_answers(tmp_path / "s")


@pytest.mark.parametrize(
    "sent", [b"", b"GET", STATUS_REQUEST[:-2], post("/backends/drain", b"{}")[:-1], STATUS_REQUEST + b"GET"]
)
def test_half_a_request_or_silence_ends_when_the_time_is_over(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path / "s", limits=Limits(request_seconds=0.05)), raw(tmp_path / "s") as client:
        client.sendall(sent)
        assert rest(client).count(b"HTTP/1.1 200") == sent.count(STATUS_REQUEST)


@pytest.mark.parametrize("sent", [b"", b"GET", post("/backends/drain", b"{}")[:-1]])
def test_so_does_one_that_leaves_in_the_middle(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path / "s", limits=Limits(clients=1)):
        for _ in range(20):
            with raw(tmp_path / "s") as client:
                client.sendall(sent)
        _until(lambda: still_answers(tmp_path / "s"))


def test_one_that_does_not_read_is_hung_up_on(tmp_path: Path) -> None:
    view = MadeUpView([connection(number) for number in range(5000)])
    with (
        running(tmp_path / "s", view, Limits(clients=1, write_seconds=0.05)),
        raw(tmp_path / "s") as client,
    ):
        client.sendall(get("/connections"))
        assert client.recv(1)
        _until(lambda: still_answers(tmp_path / "s"))  # there is room for one: so the other is gone
        assert not rest(client).endswith(b"0\r\n\r\n")


def test_one_client_more_than_are_answered_is_told_so(tmp_path: Path) -> None:
    with running(tmp_path / "s", Held(), Limits(clients=3)), contextlib.ExitStack() as clients:
        for _ in range(3):
            busy = clients.enter_context(raw(tmp_path / "s"))
            busy.sendall(get("/connections"))
            assert busy.recv(1)
        with pytest.raises(AdminError, match="already serves 3 admin clients: try again"):
            still_answers(tmp_path / "s")


def test_one_client_more_takes_the_place_of_one_that_says_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "s", limits=Limits(clients=3)), contextlib.ExitStack() as clients:
        silent = [clients.enter_context(raw(tmp_path / "s")) for _ in range(2)]
        quick = clients.enter_context(AdminClient(tmp_path / "s"))
        assert quick.status() == STATUS
        assert still_answers(tmp_path / "s")
        assert rest(silent[0]) == b""
        assert quick.status() == STATUS  # it was heard of later than they were


def test_a_thousand_connections_do_not_keep_an_operator_out(tmp_path: Path) -> None:
    with running(tmp_path / "s", limits=Limits(clients=8)), contextlib.ExitStack() as crowd:
        for number in range(1000):
            crowd.enter_context(raw(tmp_path / "s"))
            if number % 100 == 0:
                assert still_answers(tmp_path / "s")
        assert still_answers(tmp_path / "s")


def test_random_bytes_never_end_the_daemon() -> None:
    with TemporaryDirectory() as directory, running(Path(directory) / "s"):
        path = Path(directory) / "s"

        @given(
            st.binary(max_size=300), st.sampled_from([b"", b"GET /", b"POST /connections/kill HTTP/1.1\r\n"])
        )
        def abuse(sent: bytes, before: bytes) -> None:
            with raw(path) as client:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.sendall(before + sent)
                    client.shutdown(socket.SHUT_WR)
                rest(client)

        abuse()
        assert still_answers(path)


def _until(true: Callable[[], bool]) -> None:
    """Try again while the daemon has not noticed yet that the others left."""
    for _ in range(10_000):
        with contextlib.suppress(AdminError):
            assert true()
            return
    pytest.fail("the daemon does not take clients any more")
