"""`userproxy top` in a terminal of 80x24: it sees, kills, and goes on when the daemon starts anew."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Self

import pytest

from integration.sockets import connect
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER_SERVICE

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\].*?\x07|[PX^_].*?\x1b\\|.)")


class Terminal:
    """A program in a terminal of 80x24, for the time of the block."""

    def __init__(self, lab: Lab, *argv: str) -> None:
        self._screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._program = subprocess.Popen(
            lab.command("host1", *argv),
            env=lab.environment("host1") | {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self._written = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._screen)

    def type(self, keys: str) -> None:
        """Press keys; what was written before is forgotten."""
        self._take()
        self._written = b""
        os.write(self._screen, keys.encode())

    def until(self, text: str, timeout: float = 10.0) -> None:
        """Wait until a text has been written."""
        wait_until(f"{text!r} is on the screen", lambda: text in self._take(), timeout)

    def ends(self) -> tuple[int, bytes]:
        """Wait for its end; returns the exit code, and what was written since the last key."""
        code = self._program.wait(10.0)
        self._take()
        return code, self._written

    def _take(self) -> str:
        """All that was written since the last key, without what steers the terminal."""
        while select.select([self._screen], [], [], 0)[0]:
            try:
                self._written += os.read(self._screen, 65536)
            except OSError:  # it has ended
                break
        return ESCAPES.sub("", self._written.decode(errors="replace"))


def test_it_sees_kills_and_survives_a_daemon_that_starts_anew(lab: Lab) -> None:
    lab.start_daemon("host1")
    held = [connect(lab, "client", SERVER_SERVICE.frontend) for _ in range(3)]
    clients = ["{}:{}".format(*each.getsockname()) for each in held]
    with Terminal(lab, "userproxy", "top", "--interval", "0.2") as terminal:
        terminal.until("3 connections")
        for client in clients:
            terminal.until(client[:14])
        terminal.type(f"/{clients[0]}\r")
        terminal.until(f"1 with '{clients[0]}'")
        terminal.type("k")
        terminal.until("Reset the connection")
        terminal.type("y")
        terminal.until("killed 1 connection")
        with pytest.raises(ConnectionResetError):
            held[0].recv(1)
        terminal.type("\x1b")
        terminal.until("2 connections")

        lab.daemon("host1").send(signal.SIGHUP)
        terminal.until("waiting for the daemon", 15.0)
        terminal.type("p")
        terminal.type("p")
        terminal.until("2 connections", 15.0)
        held.append(connect(lab, "client", SERVER_SERVICE.frontend))
        terminal.until("3 connections")

        terminal.type("q")
        code, written = terminal.ends()
    assert code == 0
    assert b"\x1b[?1049l" in written  # the screen as it was
    assert "operator killed connections" in lab.daemon("host1").output()
    for each in held:
        each.close()


def test_without_a_daemon_or_a_terminal_it_says_so_and_ends(lab: Lab) -> None:
    with Terminal(lab, "userproxy", "top") as terminal:
        code, written = terminal.ends()
    assert (code, written.count(b"\n")) == (1, 1)
    assert b"userproxy: no daemon at " in written
    done = lab.exec("host1", "userproxy", "top", check=False)
    assert (done.returncode, "needs a terminal" in done.stderr) == (1, True)
