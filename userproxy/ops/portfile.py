"""Remembers which Service port has which host port, over restarts of the daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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
