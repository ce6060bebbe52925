"""The admin socket, with clients that behave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.model.filter import ConnectionFilter, parse_service
from userproxy.ops.admin.interface import Asker
from userproxy.ops.admin.messages import KillRequest
from userproxy.ops.admin.resources import Index
from userproxy.ops.admin.server import serve_admin
from userproxy.ops.admin.socket_file import AdminSocketError, bind_admin_socket
from userproxy.ops.client import AdminClient, AdminError
from userproxy.ops.http.clients import Limits
from userproxy.tests.ops.daemon import (
    DOWN,
    REFUSED,
    SERVICE,
    STATUS,
    UP,
    MadeUpOperator,
    MadeUpView,
    connection,
    running,
)

if TYPE_CHECKING:
    from userproxy.model.rows import ServiceRow


def test_one_client_asks_for_everything_in_turn(tmp_path: Path) -> None:
    with running(tmp_path / "s"), AdminClient(tmp_path / "s") as client:
        assert list(client.connections()) == [connection()]
        assert list(client.services()) == [SERVICE, REFUSED]
        assert list(client.backends()) == [UP, DOWN]
        assert client.status() == STATUS


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 10_000])
def test_any_number_of_connections_arrives_whole_and_in_order(tmp_path: Path, count: int) -> None:
    rows = [connection(number) for number in range(count)]
    with running(tmp_path / "s", MadeUpView(rows)), AdminClient(tmp_path / "s") as client:
        assert list(client.connections()) == rows
        assert client.status() == STATUS


def test_the_daemon_filters(tmp_path: Path) -> None:
    rows = [connection(1), connection(2, service="other/web")]
    with running(tmp_path / "s", MadeUpView(rows)), AdminClient(tmp_path / "s") as client:
        assert list(client.connections(ConnectionFilter(service=parse_service("other/web")))) == rows[1:]


def test_the_loop_goes_on_while_a_long_answer_is_sent(tmp_path: Path) -> None:
    rows = [connection(number) for number in range(5000)]
    with (
        running(tmp_path / "s", MadeUpView(rows)),
        AdminClient(tmp_path / "s") as slow,
        AdminClient(tmp_path / "s") as quick,
    ):
        answer = slow.connections()
        next(answer)
        assert quick.status() == STATUS
        assert len(list(answer)) == 4999


class BrokenView(MadeUpView):
    """Cannot answer about Services; everything else works."""

    async def services(self) -> list[ServiceRow]:
        """Fail."""
        raise KeyError("a bug")


def test_a_bug_behind_a_request_costs_only_that_client(tmp_path: Path) -> None:
    with running(tmp_path / "s", BrokenView()):
        with AdminClient(tmp_path / "s") as client, pytest.raises(AdminError, match="its log says why"):
            list(client.services())
        with AdminClient(tmp_path / "s") as client:
            assert client.status() == STATUS


def test_only_the_owner_may_open_it_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "new" / "directory" / "s"
    before = os.umask(0)
    try:
        with contextlib.closing(bind_admin_socket(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_admin_socket(path).close()
    assert path.is_socket()

    with running(path), AdminClient(path) as client:
        assert client.status() == STATUS


def test_a_living_daemons_socket_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running(path):
        with pytest.raises(AdminSocketError, match=f"another daemon answers on {path}: stop it"):
            bind_admin_socket(path)
        with AdminClient(path) as client:
            assert client.status() == STATUS


def test_nor_is_one_that_is_too_busy_to_take_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bind_admin_socket(path) as listener, contextlib.ExitStack() as waiting:
        listener.listen(0)
        for _ in range(2):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            client.connect_ex(os.fspath(path))
        with pytest.raises(AdminSocketError, match="another daemon answers"):
            bind_admin_socket(path)


@pytest.mark.parametrize("kind", ["file", "directory", "long", "below-a-file"])
def test_what_is_in_the_way_stays_and_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "directory":
        path.mkdir()
    elif kind != "long":
        path.write_text("mine")
    place = {"long": tmp_path / ("s" * 120), "below-a-file": path / "s"}.get(kind, path)

    with pytest.raises(AdminSocketError, match="choose another --admin-socket") as refused:
        bind_admin_socket(place)

    assert str(place) in str(refused.value)
    assert kind not in ("file", "below-a-file") or path.read_text() == "mine"


def test_the_socket_goes_with_the_daemon_but_a_successors_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running(path):
        pass
    assert not path.exists()

    with running(path):
        path.unlink()
        successor = bind_admin_socket(path)
    assert path.is_socket()
    successor.close()


async def test_what_fails_beside_it_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="beside"):
        async with serve_admin(tmp_path / "s", MadeUpView(), MadeUpOperator()):
            raise LookupError("beside")
    assert not (tmp_path / "s").exists()


async def test_it_ends_though_a_client_is_in_the_middle(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        async with serve_admin(tmp_path / "s", MadeUpView(), MadeUpOperator(), Limits(request_seconds=60)):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\nGET /connections HT")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert (await reader.read()).endswith(b"}\n")  # the rest of the answer, and the end
        writer.close()


def test_the_size_of_a_row_does_not_matter(tmp_path: Path) -> None:
    rows = [connection(number, state="x" * 10_000) for number in range(256)]
    with running(tmp_path / "s", MadeUpView(rows)), AdminClient(tmp_path / "s") as client:
        assert list(client.connections()) == rows


def test_connections_are_chosen_and_killed_by_state_too(tmp_path: Path) -> None:
    rows = [connection(1), connection(2, state="waiting"), connection(3, state="closing")]
    operator = MadeUpOperator()
    with running(tmp_path / "s", MadeUpView(rows), operator=operator), AdminClient(tmp_path / "s") as client:
        assert [row.id for row in client.connections(states=["waiting", "closing"])] == ["2", "3"]
        for request in (KillRequest(state=("waiting",)), KillRequest(state=("waiting",), ids=("1", "2"))):
            client.one("/connections/kill", msgspec.Struct, request)
    assert operator.killed == [(("2",), ConnectionFilter())] * 2


def test_who_asks_is_what_the_kernel_says(tmp_path: Path) -> None:
    operator = MadeUpOperator()
    with running(tmp_path / "s", operator=operator), AdminClient(tmp_path / "s") as client:
        client.kill(["1"])
    command = Path("/proc/self/comm").read_text().strip()
    assert operator.askers == [Asker(os.getuid(), os.getpid(), command)]


def test_the_resources_are_listed_as_they_are_served(tmp_path: Path) -> None:
    with running(tmp_path / "s"), AdminClient(tmp_path / "s") as client:
        index = client.one("/", Index)
        for one in index.resources:
            if one.method == "GET":
                assert list(client.rows(one.path, msgspec.Struct))
    assert ("POST", "/connections/kill") in {(one.method, one.path) for one in index.resources}
    assert all(one.about for one in index.resources)
