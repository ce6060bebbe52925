"""What a worker does about many connections one after the other: the others' bytes do not wait for it."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from userproxy.model import messages
from userproxy.model.records import row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.dataplane.connections import ConnectionTable
    from userproxy.dataplane.plane import DataPlane
    from userproxy.dataplane.udp.datagrams import Datagrams
    from userproxy.worker.channel import Channel

# Sessions in one message, each with its socket, or Service ports with their counts.
_CHUNK = 100

# What the control side may take to read all records, when a worker ends.
_HAND_OVER_SECONDS = 3.0

Long = (
    messages.ListConnections | messages.ListRecords | messages.Kill | messages.YieldSessions | messages.Count
)
"""Orders that are about so many."""


class Say(Protocol):
    """Tells the control side."""

    def __call__(self, part: messages.Parts, fds: Sequence[int] = (), /) -> None:
        """A part of an answer, with files."""


async def carry_out(plane: DataPlane, order: Long, say: Say) -> None:
    """Do what an order says, and answer it but for `Done`."""
    table = plane.connections
    match order:
        case messages.ListConnections():
            for rows in table.rows(order.wanted):
                say(messages.ConnectionListing(serial=order.serial, rows=tuple(rows)))
                await asyncio.sleep(0)
        case messages.ListRecords():
            for records in table.records(order.wanted):
                if records:
                    say(messages.RecordListing(serial=order.serial, rows=tuple(map(row_of, records))))
                await asyncio.sleep(0)
        case messages.Kill():
            await _kill(table, order, say)
        case messages.YieldSessions():
            await _yield_sessions(plane.datagrams, order, say)
        case messages.Count():
            await _count(plane, order, say)


async def leave_records(table: ConnectionTable, say: Say, channel: Channel) -> None:
    """Give what is remembered to whoever is at the other end, for another worker to keep."""
    for records in table.recorder.give():
        say(messages.Records(records=tuple(records)))
        await asyncio.sleep(0)
    await channel.flush(_HAND_OVER_SECONDS)


async def _kill(table: ConnectionTable, order: messages.Kill, say: Say) -> None:
    count = 0
    for killed in table.kill(order.numbers, order.wanted):
        count += killed
        await asyncio.sleep(0)
    say(messages.Killed(serial=order.serial, count=count))


async def _count(plane: DataPlane, order: messages.Count, say: Say) -> None:
    for _ in plane.connections.add_up():
        await asyncio.sleep(0)
    found = plane.report()
    for start in range(0, len(found), _CHUNK):
        part = tuple(found[start : start + _CHUNK])
        say(messages.ServiceCounts(serial=order.serial, services=part))
    say(plane.totals(order.serial))


async def _yield_sessions(datagrams: Datagrams, order: messages.YieldSessions, say: Say) -> None:
    datagrams.pause()
    given = datagrams.hand_over()
    while part := list(islice(given, _CHUNK)):
        states = tuple(state for state, _ in part)
        try:
            say(messages.Sessions(serial=order.serial, sessions=states), [sock.fileno() for _, sock in part])
        finally:
            for _, sock in part:
                sock.close()
        if datagrams.count:  # or else this worker may be over, and must say that it is done
            await asyncio.sleep(0)
