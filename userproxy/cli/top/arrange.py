"""Which lines are shown, and in which order. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from userproxy.cli.top.reading import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class SortBy(enum.StrEnum):
    """What comes first: the largest, but for idle, where it is who moved last."""

    RATE = "rate"
    BYTES = "bytes"
    AGE = "age"
    IDLE = "idle"


class GroupBy(enum.StrEnum):
    """What one line stands for: one connection, or all of a Service port, a backend or a client's IP."""

    NOTHING = "nothing"
    SERVICE = "service"
    BACKEND = "backend"
    CLIENT = "client"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: a connection, or a group of them.

    Attributes:
        key: the connection's id, or what the group has in common.
        flows: the connections.
        rate: bytes a second, of all together.
        bytes: so far, likewise.
        age: in seconds, of the oldest.
        idle: in seconds, of the one that moved last.
        states: how many connections are in each.
    """

    key: str
    flows: tuple[Flow, ...]
    rate: float
    bytes: int
    age: float
    idle: float
    states: Mapping[str, int]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How the lines are wanted.

    Attributes:
        sort_by: by which figure.
        reverse: the other way round.
        group_by: what a line stands for.
        filter: words that a connection's texts must have, each of them; without regard to case.
    """

    sort_by: SortBy = SortBy.RATE
    reverse: bool = False
    group_by: GroupBy = GroupBy.NOTHING
    filter: str = ""


def arranged(flows: Iterable[Flow], wanted: Wanted) -> list[Line]:
    """The lines, in order. What is equal comes in the order of its key, so that nothing jumps about."""
    words = wanted.filter.lower().split()
    found = [flow for flow in flows if all(word in flow.text for word in words)]
    if wanted.group_by is GroupBy.NOTHING:
        lines = [_line(flow) for flow in found]
    else:
        lines = _grouped(found, _KEYS[wanted.group_by])
    lines.sort(key=attrgetter("key"))
    lines.sort(
        key=attrgetter(wanted.sort_by.value), reverse=(wanted.sort_by is not SortBy.IDLE) != wanted.reverse
    )
    return lines


def _line(flow: Flow) -> Line:
    row = flow.row
    return Line(
        key=row.id,
        flows=(flow,),
        rate=flow.rate,
        bytes=(row.bytes_up or 0) + (row.bytes_down or 0),
        age=row.age_seconds,
        idle=row.idle_seconds,
        states={row.state: 1},
    )


def _grouped(flows: Sequence[Flow], key: Callable[[Flow], str]) -> list[Line]:
    groups: dict[str, list[Flow]] = {}
    for flow in flows:
        groups.setdefault(key(flow), []).append(flow)
    return [
        Line(
            key=name,
            flows=tuple(members),
            rate=sum(flow.rate for flow in members),
            bytes=sum((flow.row.bytes_up or 0) + (flow.row.bytes_down or 0) for flow in members),
            age=max(flow.row.age_seconds for flow in members),
            idle=min(flow.row.idle_seconds for flow in members),
            states=Counter(flow.row.state for flow in members),
        )
        for name, members in groups.items()
    ]


_KEYS: Mapping[GroupBy, Callable[[Flow], str]] = {
    GroupBy.SERVICE: lambda flow: flow.row.service,
    GroupBy.BACKEND: lambda flow: flow.row.backend or "none yet",
    GroupBy.CLIENT: lambda flow: flow.row.client.rpartition(":")[0],
}
