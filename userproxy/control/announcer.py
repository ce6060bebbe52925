"""Tells whoever has started the daemon how it is: systemd by datagrams, a kubelet by a file for its probes.

See sd_notify(3). The library that systemd brings is more than the few lines that it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

log = structlog.get_logger("userproxy")

_MICROSECONDS = 1e6


class Announcer:
    """Lives as long as the daemon.

    Args:
        environment: says where systemd listens, and how often it wants to hear of us.
        ready_file: is there while this daemon serves the node; None for no file.
    """

    def __init__(self, environment: Mapping[str, str], ready_file: Path | None = None) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._ready_file = ready_file
        self._is_serving = False
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environment.get("WATCHDOG_USEC", "")
        self._period = int(period) / _MICROSECONDS if meant and period.isdecimal() else 0.0

    def waiting(self) -> None:
        """Another daemon has the node."""
        self._withdraw()  # a file that somebody has left who was killed

    def started(self) -> None:
        """Workers and rules are there."""
        self._send("READY=1")

    def serving(self) -> None:
        """What the source wants is in effect."""
        if self._ready_file is not None and not self._is_serving:
            self._is_serving = True
            try:
                self._ready_file.parent.mkdir(parents=True, exist_ok=True)
                self._ready_file.touch()
            except OSError as error:
                log.warning("no probe will find this daemon ready", file=error.filename, error=error.strerror)

    def renewing(self) -> None:
        """The daemon starts anew, and will be `started` again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It serves no more."""
        self._send("STOPPING=1")
        self._withdraw()

    async def beat(self, is_alive: Callable[[], bool]) -> None:
        """Say that all is well, while it is, twice in the time that systemd gives; until cancelled."""
        while self._period:
            if is_alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self._period / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.settimeout(0)
            sock.sendto(state.encode(), self._address)

    def _withdraw(self) -> None:
        self._is_serving = False
        if self._ready_file is not None:
            with contextlib.suppress(OSError):
                self._ready_file.unlink(missing_ok=True)
