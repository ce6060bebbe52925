"""Requests to servers that answer with any bytes: what comes of them is a body, or one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from userproxy.sources.kubernetes import access
from userproxy.sources.kubernetes.access import Access
from userproxy.sources.kubernetes.failures import AccessError, GoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.asynccontextmanager
async def served(path: Path, answer: Callable[[str], bytes]) -> AsyncIterator[Access]:
    """The way to a server that answers each request with `answer(its own address)`, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(url))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        ip, port = server.sockets[0].getsockname()
        url = f"http://{ip}:{port}"
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        kubeconfig = path / "kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        reached = Access(kubeconfig)
        try:
            yield reached
        finally:
            await reached.close()


async def watch(reached: Access) -> None:
    async with reached.stream("/api/widgets", {}, 10.0) as chunks:
        async for _ in chunks:
            pass


def redirect(to: str, status: bytes = b"302 Found") -> bytes:
    return b"HTTP/1.1 %s\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, to.encode())


FAILURES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "silence": (lambda _: b"", "has hung up"),
    "no HTTP": (lambda _: b"220 mail.example ESMTP\r\n\r\n", "does not speak HTTP"),
    "TLS": (lambda _: b"\x15\x03\x03\x00\x02\x02\x28", "does not speak HTTP"),
    "a header without an end": (lambda _: OK + b"X: " + b"x" * 100_000, "does not speak HTTP"),
    "a header of binary": (lambda _: OK + b"X\x00\xff: 1\r\n\r\n", "does not speak HTTP"),
    "a length of nonsense": (lambda _: OK + b"Content-Length: many\r\n\r\n", "does not speak HTTP"),
    "less than was said": (lambda _: OK + b"Content-Length: 9\r\n\r\nshort", "has hung up"),
    "a chunk of nonsense": (lambda _: OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", ""),
    "half a chunk": (lambda _: OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nshort", "has hung up"),
    "gzip garbage": (lambda _: OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", "unpacked"),
    "a circle": (lambda url: redirect(f"{url}/again"), "redirects in a circle"),
    "a redirect to a file": (lambda _: redirect("file:///etc/passwd"), "redirects to what is no address"),
    "a redirect to nonsense": (lambda _: redirect("http://["), "redirects to what is no address"),
    "a redirect to nowhere": (lambda _: b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "answered 302"),
    "not found": (lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 to /api/widgets"),
    "bad gateway": (
        lambda _: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
        "answered 502: Bad Gateway",
    ),
    "unauthorized": (
        lambda _: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        "does not accept the credentials (Unauthorized): renew the token",
    ),
    "an error of binary": (
        lambda _: b"HTTP/1.1 500 \xff\x00\r\nContent-Length: 2\r\n\r\n\xff\xff",
        "",
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_list_fails_with_one_line_that_names_the_server(tmp_path: Path, kind: str) -> None:
    answer, expected = FAILURES[kind]
    async with served(tmp_path, answer) as reached:
        with pytest.raises(AccessError) as failure:
            await reached.get("/api/widgets", {})
        assert expected in str(failure.value)
        assert reached.server in str(failure.value)
        assert str(failure.value).isprintable()


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_watch_fails_likewise(tmp_path: Path, kind: str) -> None:
    answer, expected = FAILURES[kind]
    async with served(tmp_path, answer) as reached:
        with pytest.raises(AccessError) as failure:
            await watch(reached)
        assert expected in str(failure.value)


async def test_what_a_server_answers_is_handed_on_whatever_it_is(tmp_path: Path) -> None:
    html = b"<html>\xff</html>"
    async with served(tmp_path, lambda _: OK + b"\r\n" + html) as reached:
        assert await reached.get("/api/widgets", {}) == html


async def test_an_answer_without_an_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_BODY", 1 << 20)
    async with served(tmp_path, lambda _: OK + b"\r\n" + b"x" * (2 << 20)) as reached:
        with pytest.raises(AccessError, match="more than 1 MiB"):
            await reached.get("/api/widgets", {})


async def test_gone_is_told_apart(tmp_path: Path) -> None:
    async with served(tmp_path, lambda _: b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n") as reached:
        with pytest.raises(GoneError):
            await reached.get("/api/widgets", {})


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("9999", 60.0), ("²", 0.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0)]
)
async def test_the_server_may_ask_for_time(tmp_path: Path, value: str, seconds: float) -> None:
    busy = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    async with served(tmp_path, lambda _: busy) as reached:
        with pytest.raises(AccessError) as failure:
            await reached.get("/api/widgets", {})
        assert failure.value.retry_after == seconds


async def test_requests_are_counted_by_what_came_of_them(tmp_path: Path) -> None:
    async with served(tmp_path, lambda _: OK + b"Content-Length: 0\r\n\r\n") as reached:
        await reached.get("/api/widgets", {})
        host = reached.server.removeprefix("http://")
        counters = reached.counters
    assert counters.api_requests == {f"200 GET {host}": 1}
    assert sum(counters.api_times[f"GET {host}"].counts) == 1
    async with served(tmp_path, lambda _: b"") as reached:
        host = (await _server_of(reached)).removeprefix("http://")
        with pytest.raises(AccessError):
            await reached.patch("/api/widgets/a", {})
    assert reached.counters.api_requests == {f"<error> PATCH {host}": 1}


async def _server_of(reached: Access) -> str:
    await reached.load()
    return reached.server
