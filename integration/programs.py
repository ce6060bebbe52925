"""Servers of others that run in the lab's pods for the time of a block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

START_SECONDS = 15.0


@contextlib.contextmanager
def running(lab: Lab, name: str, member: str, port: int, *argv: str) -> Iterator[None]:
    """A program that listens on a port of a pod."""
    process = lab.start(name, member, *argv)
    try:
        wait_until(f"{name} serves", lambda: process.listens(port), START_SECONDS)
        yield
    finally:
        process.stop()
