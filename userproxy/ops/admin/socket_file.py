"""The file of the admin socket: made for its owner alone, taken over from the dead, left to a successor."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class AdminSocketError(Exception):
    """The admin socket cannot be opened. One line, with the remedy."""


@contextlib.contextmanager
def admin_socket(path: Path) -> Iterator[socket.socket]:
    """A socket that is bound to path meanwhile, as `bind_admin_socket` makes it; then the file is removed.

    Raises:
        AdminSocketError: something is in the way.
    """
    listener = bind_admin_socket(path)
    ours = _identity(path)
    try:
        yield listener
    finally:
        listener.close()
        _remove_own(path, ours)


def bind_admin_socket(path: Path) -> socket.socket:
    """Bind path as a unix socket that only its owner can open, replacing one that a dead daemon left.

    Returns:
        The socket, bound and not listening yet.

    Raises:
        AdminSocketError: something is in the way.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        # Linux gives the file the mode of the socket's own inode (unix_bind in net/unix/af_unix.c), so it is
        # 0600 from its first moment, and the process's umask, which other threads share, stays alone.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise AdminSocketError(f"cannot make {path}: {reason}: choose another --admin-socket") from None
    except AdminSocketError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminSocketError(f"{path} exists and is no socket: remove it, or choose another --admin-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        outcome = probe.connect_ex(os.fspath(path))
    if outcome in (0, errno.EAGAIN):  # EAGAIN: it listens, and its backlog is full
        raise AdminSocketError(f"another daemon answers on {path}: stop it, or choose another --admin-socket")
    path.unlink(missing_ok=True)


def _remove_own(path: Path, ours: tuple[int, int] | None) -> None:
    """Remove the socket, unless a successor has made its own in the meantime."""
    if ours is not None and _identity(path) == ours:
        with contextlib.suppress(OSError):  # a directory that went away, or became read-only
            path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
