"""Remembers which Service port has which host port, over restarts of the daemon."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from userproxy.planner.ports import PortBook

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = structlog.get_logger("userproxy.control")


class PortFile:
    """A JSON file, replaced as a whole or not at all.

    Args:
        directory: where it is; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ports.json"
        self._written: bytes | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def read(self) -> object:
        """What was written last; an empty mapping if nothing was, or the bare bytes if it makes no sense.

        Raises:
            OSError: it is there, and cannot be read.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            return content

    def write(self, ports: Mapping[str, int]) -> None:
        """Replace the content, unless it is the same.

        Raises:
            OSError: it could not be written; the former content is still there.
        """
        content = msgspec.json.encode(ports)
        if content == self._written:
            return
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._written = content


class HostPorts:
    """The host ports, and the file that remembers them.

    Attributes:
        book: who has which.
    """

    def __init__(self, book: PortBook, file: PortFile) -> None:
        self.book = book
        self._file = file
        self._remembered = -1

    @classmethod
    def load(cls, ports: range, file: PortFile) -> Self:
        """Those that the file remembers, within a range; what cannot be used is logged, and left out."""
        saved: object = {}
        try:
            saved = file.read()
        except OSError as error:
            log.warning("host ports cannot be read back", file=str(file.path), error=error.strerror)
        book, complaints = PortBook.load(ports, saved)
        for complaint in complaints:
            log.warning("a saved host port is ignored", file=str(file.path), error=complaint)
        return cls(book, file)

    async def remember(self) -> None:
        """Write them down, before any packet is sent to a new one; nothing to do if they are the same."""
        revision = self.book.revision
        if revision == self._remembered:
            return
        try:
            await asyncio.to_thread(self._file.write, self.book.dump())
            self._remembered = revision
        except OSError as error:
            log.warning(
                "host ports are not remembered over a restart",
                file=str(self._file.path),
                error=error.strerror,
                remedy="name a directory that can be written to with --state-dir",
            )
