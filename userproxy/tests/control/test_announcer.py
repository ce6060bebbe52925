"""What systemd and a kubelet are told, and when."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from userproxy.control.announcer import Announcer

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, sockets: Sockets) -> tuple[socket.socket, str]:
    """Where systemd listens, and how it says so."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sockets.keep(sock)
    name = str(tmp_path / "a@b") if request.param == "path" else f"@userproxy-test-{secrets.token_hex(8)}"
    sock.bind(f"\0{name[1:]}" if name.startswith("@") else name)
    sock.settimeout(0)
    return sock, name


def test_each_state_is_told(systemd: tuple[socket.socket, str]) -> None:
    sock, name = systemd
    announcer = Announcer({"NOTIFY_SOCKET": name})
    announcer.started()
    assert sock.recv(100) == b"READY=1"
    before = time.monotonic_ns() // 1000
    announcer.renewing()
    state, _, moment = sock.recv(100).decode().partition("\n")
    assert state == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    announcer.stopping()
    assert sock.recv(100) == b"STOPPING=1"


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    Announcer({}).started()
    Announcer({"NOTIFY_SOCKET": str(tmp_path / "gone")}).started()


async def test_the_watchdog_hears_of_us_twice_in_its_time(systemd: tuple[socket.socket, str]) -> None:
    sock, name = systemd
    loop = asyncio.get_running_loop()
    beating = asyncio.ensure_future(
        Announcer({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000"}).beat(lambda: True)
    )
    for _ in range(3):
        assert await loop.sock_recv(sock, 100) == b"WATCHDOG=1"
    beating.cancel()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}],
)
async def test_there_is_nothing_to_say_to_a_watchdog_that_does_not_mean_us(
    environment: dict[str, str],
) -> None:
    await Announcer(environment).beat(lambda: True)


async def test_one_that_names_us_means_us() -> None:
    meant = Announcer({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())})
    beating = asyncio.ensure_future(meant.beat(lambda: True))
    await asyncio.sleep(0)
    assert not beating.done()
    beating.cancel()


async def test_one_that_hangs_is_silent(systemd: tuple[socket.socket, str]) -> None:
    sock, name = systemd
    loop = asyncio.get_running_loop()
    health = iter((False, True, False, False))
    announcer = Announcer({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2"})
    beating = asyncio.ensure_future(announcer.beat(lambda: next(health)))
    assert await loop.sock_recv(sock, 100) == b"WATCHDOG=1"
    with pytest.raises(RuntimeError, match="StopIteration"):
        await beating
    with pytest.raises(BlockingIOError):
        sock.recv(100)


def test_a_probe_finds_the_file_while_the_daemon_serves(tmp_path: Path) -> None:
    file = tmp_path / "made for it" / "ready"
    announcer = Announcer({}, file)
    announcer.started()
    assert not file.exists()
    announcer.serving()
    assert file.exists()
    announcer.renewing()
    assert file.exists()
    announcer.stopping()
    assert not file.exists()
    announcer.stopping()


def test_one_that_waits_is_not_ready_whatever_a_killed_one_has_left(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    file.touch()
    announcer = Announcer({}, file)
    assert file.exists()
    announcer.waiting()
    assert not file.exists()


def test_a_file_that_cannot_be_made_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    announcer = Announcer({}, tmp_path / "taken" / "ready")
    with capture_logs() as lines:
        announcer.serving()
        announcer.serving()
    assert [line["event"] for line in lines] == ["no probe will find this daemon ready"]
