"""A daemon that has handed over stays until its workers have ended, and ends them when its time is over."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from userproxy.control.succession.outlasted import Outlasted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("quiet")

STUBBORN = "trap '' USR1; echo up; while read -r line; do :; done"
WILLING = "trap 'exit 3' USR1; echo up; while read -r line; do :; done"


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a shell in the place of a worker; returns when it has said that it is up."""
    started: list[subprocess.Popen[str]] = []

    def popen(script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - a script of ours
            ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


async def test_there_is_nothing_to_wait_for_without_workers() -> None:
    await Outlasted([]).wait(drain_seconds=30)


async def test_it_stays_until_the_last_has_ended(start: Callable[[str], subprocess.Popen[str]]) -> None:
    first, second = start(WILLING), start(WILLING)
    waiting = asyncio.ensure_future(Outlasted([first.pid, second.pid]).wait(drain_seconds=30))
    first.kill()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert second.stdin is not None
    second.stdin.close()
    await waiting


async def test_told_to_stop_it_gives_connections_their_time(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    worker = start(WILLING)
    outlasted = Outlasted([worker.pid])
    waiting = asyncio.ensure_future(outlasted.wait(drain_seconds=1e6))
    outlasted.end()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert worker.stdin is not None
    worker.stdin.close()
    await waiting


@pytest.mark.parametrize(("script", "seconds"), [(WILLING, 0.0), (WILLING, 1e6)])
async def test_then_it_has_the_workers_reset_them(
    start: Callable[[str], subprocess.Popen[str]], script: str, seconds: float
) -> None:
    worker = start(script)
    outlasted = Outlasted([worker.pid])
    outlasted.end()
    if seconds:
        outlasted.end()  # a second signal: no more time
    await outlasted.wait(seconds)


async def test_a_worker_that_does_not_end_is_killed(
    start: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userproxy.control.succession.outlasted._HURRY_SECONDS", 0.0)
    worker = start(STUBBORN)
    outlasted = Outlasted([worker.pid])
    outlasted.end()
    await outlasted.wait(0.0)
    outlasted.forget()
    worker.wait()


@pytest.mark.parametrize("told", [True, False])
async def test_it_forgets_them_when_it_starts_anew(
    start: Callable[[str], subprocess.Popen[str]], told: bool
) -> None:
    worker = start(WILLING)
    outlasted = Outlasted([worker.pid])
    if told:
        outlasted.end()
    assert outlasted.forget() is told
    assert worker.poll() is None
    worker.send_signal(signal.SIGUSR1)
