"""Keeps what is remembered of connections while no daemon runs: between a stop and the next start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = structlog.get_logger("userproxy.control")


class RecordFile:
    """A file that is there only then. It is another version's to read too: records are as in `model.records`.

    Args:
        directory: where it is; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "connections.msgpack"

    def take(self) -> list[bytes]:
        """What was left, once; nothing if that cannot be read."""
        try:
            content = self._path.read_bytes()
            self._path.unlink()
            return msgspec.msgpack.decode(content, type=list[bytes])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            log.warning("connections of before are forgotten", file=str(self._path), error=str(error))
            return []

    def leave(self, records: Sequence[bytes]) -> None:
        """Leave these to the next daemon."""
        if not records:
            return
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_bytes(msgspec.msgpack.encode(list(records)))
            draft.replace(self._path)
        except OSError as error:
            log.warning("connections that are over are forgotten", file=str(self._path), error=error.strerror)
