"""The process above a daemon: it ends with the daemon, but for one that was killed, which it starts anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest

from userproxy.cli.entry import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ABOVE = """
import signal, sys
from userproxy.cli.init import supervise
for each in (signal.SIGHUP, signal.SIGINT):  # which are ignored in the background, and under nohup
    signal.signal(each, signal.SIG_DFL)
sys.exit(supervise(sys.argv[1:]))
"""
ENTRY = "import sys; from userproxy.cli.entry import main; main()"
UNTIL_TOLD = "echo up; while read -r line; do :; done"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a shell script below the process in question, in a directory of its own."""
    started: list[subprocess.Popen[str]] = []

    def popen(script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - ourselves, and a shell
            [sys.executable, "-c", ABOVE, "/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()  # which ends a script, too
        process.kill()
        process.wait()


def line(stream: IO[str] | None) -> str:
    """The next one; empty at the end."""
    assert stream is not None
    return stream.readline().strip()


@pytest.mark.parametrize("code", [0, 1, 2, 77])
def test_it_ends_with_the_exit_code_of_a_program_that_ends_by_itself(
    start: Callable[[str], subprocess.Popen[str]], code: int
) -> None:
    process = start(f"exit {code}")
    assert process.wait() == code
    assert line(process.stderr) == ""


def test_a_program_that_is_killed_is_started_anew_at_once(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start("mkdir once && kill -KILL $$; exit 7")
    assert process.wait() == 7
    assert line(process.stderr) == "userproxy: the daemon was killed by SIGKILL; it is started anew"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_to_the_program(
    start: Callable[[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    process = start(f"trap 'echo {name}; exit 5' {name}; {UNTIL_TOLD}")
    assert line(process.stdout) == "up"
    process.send_signal(number)
    assert line(process.stdout) == name
    assert process.wait() == 5


def test_a_program_that_a_signal_was_to_end_is_not_started_again(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start(UNTIL_TOLD)
    assert line(process.stdout) == "up"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert line(process.stderr) == ""


def test_one_that_dies_again_and_again_has_to_wait_and_waiting_can_be_ended(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start("kill -SEGV $$")
    assert line(process.stderr).endswith("the daemon was killed by SIGSEGV; it is started anew")
    assert line(process.stderr).endswith("the daemon was killed by SIGSEGV; it is started anew in 1 s")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


READY = (
    f"{sys.executable} -S -c \"import os,socket; a=os.environ['NOTIFY_SOCKET'];"
    "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', a.replace('@', chr(0)))\""
)


def test_one_that_fails_after_it_has_served_is_started_anew(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start(f"mkdir once && {{ {READY}; exit 1; }}; exit 0")
    assert process.wait() == 0
    assert line(process.stderr) == "userproxy: the daemon has failed with exit code 1; it is started anew"


def test_one_that_has_served_and_is_silent_is_killed_and_started_anew(
    start: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = "import userproxy.cli.init as init; init.WATCHDOG_SECONDS = init._LOOK_SECONDS = 0.1; "
    monkeypatch.setattr("userproxy.tests.cli.test_init.ABOVE", impatient + ABOVE)
    process = start(f"mkdir once && {{ {READY}; {UNTIL_TOLD}; }}; exit 0")
    assert process.wait() == 0
    assert line(process.stderr) == "userproxy: the daemon was silent for 0.1 s: it is killed"
    assert line(process.stderr) == "userproxy: the daemon was killed by SIGKILL; it is started anew"


def test_one_that_has_yet_to_serve_may_be_silent(
    start: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = "import userproxy.cli.init as init; init.WATCHDOG_SECONDS = init._LOOK_SECONDS = 0.0; "
    monkeypatch.setattr("userproxy.tests.cli.test_init.ABOVE", impatient + ABOVE)
    process = start(UNTIL_TOLD)
    assert line(process.stdout) == "up"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


def test_orphans_of_the_program_that_was_killed_live_on(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start(f"mkdir once && {{ ({UNTIL_TOLD}) & kill -KILL $$; }}; {UNTIL_TOLD}")
    assert [line(process.stdout), line(process.stdout)] == ["up", "up"]


def test_the_command_line_does_as_it_is_asked_and_ends_as_the_daemon_does() -> None:
    environment = {**os.environ, VARIABLE: "true"}
    command = [sys.executable, "-c", ENTRY, "run", "--workers", "0", "--manifests", "/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert "workers" in said


def test_it_imports_nothing_that_takes_memory() -> None:
    script = f"{ENTRY.removesuffix('main()')}import userproxy.cli.init; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603
    assert not {"asyncio", "click", "msgspec", "socket", "subprocess", "uvloop"} & set(done.stdout.split())
