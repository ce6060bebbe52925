"""Tells when something changes in a set of directories, by inotify.

A hint only: whoever waits looks for himself at what has changed, and looks once in a while without any hint.
So the queue may overflow, and a system without a free inotify instance only makes changes take effect later.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from typing import TYPE_CHECKING, Self

import structlog
from asyncinotify import Inotify, Mask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from asyncinotify import Event

log = structlog.get_logger()

_MASK = (
    Mask.CLOSE_WRITE
    | Mask.CREATE
    | Mask.MOVE
    | Mask.DELETE
    | Mask.ATTRIB
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
)


class DirectoryWatch:
    """A set of directories that may change, and may vanish and come back.

    Use it as a context manager, with `listen` running. Nothing is watched at first.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._touched: set[str] = set()
        self._names: frozenset[str] = frozenset()
        self._all_of: frozenset[Path] = frozenset()
        self._inotify: Inotify | None = None

    def __enter__(self) -> Self:
        try:
            self._inotify = Inotify()
        except OSError as failure:
            log.warning("inotify is not to be had: changes are found by looking", error=failure.strerror)
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify:
            self._inotify.close()

    def watch(self, directories: Iterable[Path], *, all_of: Collection[Path], names: Collection[str]) -> None:
        """Watch these directories and no others; counts as a change where one was not watched before.

        Args:
            directories: absolute paths. One that does not exist, or is replaced, is watched when it is given
                again: the kernel watches the directory, not its name.
            all_of: those of them where every change counts.
            names: the names whose changes count in the others.
        """
        self._all_of, self._names = frozenset(all_of), frozenset(names)
        if not self._inotify:
            return
        before = {watch.wd: watch for watch in self._inotify.watches}
        now = set()
        for directory in directories:
            try:
                now.add(self._inotify.add_watch(directory, _MASK).wd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as failure:
                log.warning("directory is not watched", directory=str(directory), error=failure.strerror)
        for wd in before.keys() - now:
            with contextlib.suppress(OSError):  # EINVAL: its directory went first, and the watch with it
                self._inotify.rm_watch(before[wd])
        if now - before.keys():
            self._changed.set()

    async def listen(self) -> None:
        """Take in what the kernel tells, until cancelled."""
        if not self._inotify:
            return
        async for event in self._inotify:
            if self._counts(event):
                if event.name:
                    self._touched.add(event.name.name)
                self._changed.set()

    def note(self) -> None:
        """Count as a change that which the caller found out for himself."""
        self._changed.set()

    async def changed(self, within: float) -> bool:
        """Wait for a change, at most so many seconds; whether there was one."""
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> frozenset[str]:
        """The file names that the changes so far were about; they are forgotten here."""
        touched, self._touched = frozenset(self._touched), set()
        self._changed.clear()
        return touched

    def _counts(self, event: Event) -> bool:
        directory = event.watch.path if event.watch else None
        if event.name is None or directory is None:
            return True
        if directory not in self._all_of and event.name.name not in self._names:
            return False
        return not (Mask.CREATE in event.mask and _is_being_written(directory / event.name))


def _is_being_written(path: Path) -> bool:
    """A new file with one name has a writer, whose close will be told; a link, or a directory, has none."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
