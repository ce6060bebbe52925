"""What the page shows: a bounded part of everything, of each kind what one looks for first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from userproxy.model.filter import ConnectionFilter
from userproxy.model.rows import BackendRow, ConnectionRow, ServiceRow, StatusRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.ops.admin.interface import View

ROWS = 50
"""Of each kind, at most: the page stays small on a node with 10,000 Services."""

_UP = "up"
_Row = TypeVar("_Row")


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon at one moment.

    Attributes:
        status: of the daemon.
        services: those with problems, without a backend, or with the most connections.
        backends: those that are not up, then those with the most connections.
        backends_up: how many of all are up.
        all_backends: how many there are.
        connections: those that moved last.
    """

    status: StatusRow
    services: tuple[ServiceRow, ...]
    backends: tuple[BackendRow, ...]
    backends_up: int
    all_backends: int
    connections: tuple[ConnectionRow, ...]


async def overview(view: View) -> Overview:
    """Ask the daemon."""
    services, backends = await view.services(), await view.backends()
    newest: list[ConnectionRow] = []
    async for rows in view.connections(ConnectionFilter()):
        newest = heapq.nsmallest(ROWS, [*newest, *rows], key=_last_moved)
    return Overview(
        status=await view.status(),
        services=_first(services, _wanting_first),
        backends=_first(backends, _broken_first),
        backends_up=sum(row.state == _UP for row in backends),
        all_backends=len(backends),
        connections=tuple(newest),
    )


def _first(rows: Sequence[_Row], order: Callable[[_Row], tuple[Any, ...]]) -> tuple[_Row, ...]:
    return tuple(heapq.nsmallest(ROWS, rows, key=order))


def _last_moved(row: ConnectionRow) -> tuple[float, float]:
    return row.idle_seconds, row.age_seconds


def _wanting_first(row: ServiceRow) -> tuple[bool, bool, int, str]:
    return not row.problems, bool(row.backends_up), -row.connections, row.service


def _broken_first(row: BackendRow) -> tuple[bool, int, str]:
    return row.state == _UP, -row.connections, row.service
