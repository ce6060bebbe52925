"""The daemon that is watched: each time it is asked anew, so that one that has started anew is found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.rows import ConnectionRow, StatusRow
from userproxy.ops.admin.messages import Drained, Killed
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from userproxy.model.address import Address
    from userproxy.model.filter import ConnectionFilter

_PATIENCE_SECONDS = 5.0

_IDS = 1000
"""In one request."""


class Look(msgspec.Struct, frozen=True):
    """What the daemon shows at one moment."""

    rows: Sequence[ConnectionRow]
    status: StatusRow


class Remote:
    """Asks a daemon; every method raises AdminError.

    Args:
        path: of its admin socket.
        wanted: the connections that are asked for.
        choose: those of them that are watched.
    """

    def __init__(
        self,
        path: str,
        wanted: ConnectionFilter,
        choose: Callable[[Iterable[ConnectionRow]], Sequence[ConnectionRow]],
    ) -> None:
        self._path = path
        self._wanted = wanted
        self._choose = choose

    def look(self) -> Look:
        """What it shows now."""
        with AdminClient(self._path, _PATIENCE_SECONDS) as daemon:
            return Look(self._choose(daemon.connections(self._wanted)), daemon.status())

    def kill(self, ids: Sequence[str]) -> Killed:
        """Reset these connections."""
        remaining, killed, carried, beyond = iter(ids), 0, 0, 0
        while batch := tuple(itertools.islice(remaining, _IDS)):
            with AdminClient(self._path, 2 * _PATIENCE_SECONDS) as daemon:
                answer = daemon.kill(batch)
            killed, carried = killed + answer.killed, carried + answer.carried
            beyond += answer.out_of_reach
        return Killed(killed=killed, carried=carried, out_of_reach=beyond)

    def drain(self, backend: Address, *, undo: bool) -> Drained:
        """Give a pod no new connections, or let it be picked again."""
        with AdminClient(self._path, 2 * _PATIENCE_SECONDS) as daemon:
            return daemon.drain(backend, undo=undo)
