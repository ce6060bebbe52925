"""The table of live connections: who is in it, what an operator sees of them, and how they ended."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import chain, islice, takewhile
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol

from userproxy.dataplane.recorder import Recorder, record_of, turned_away
from userproxy.dataplane.tcp.lifecycle import Event
from userproxy.dataplane.traffic import Traffic
from userproxy.model.connection_id import ConnectionId
from userproxy.model.endings import Reason
from userproxy.model.rows import ConnectionRow
from userproxy.model.service import Path
from userproxy.model.service import Protocol as IpProtocol
from userproxy.model.state import Serve
from userproxy.net.sockets import turn_away as reset

if TYPE_CHECKING:
    import enum
    from _socket import socket
    from collections.abc import Iterable, Iterator

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService
    from userproxy.model.address import Address
    from userproxy.model.counters import Counters
    from userproxy.model.filter import ConnectionFilter, RecordFilter
    from userproxy.model.records import Facts, Record

# Rows made in one go: well under a millisecond's worth of a connection's waiting.
_CHUNK = 100


class Relayed(Protocol):
    """What is known of a client's connection, or of a UDP client's session."""

    @property
    def number(self) -> int:
        """Unique while the daemon lives."""

    @property
    def service(self) -> LiveService:
        """Whose traffic it is."""

    @property
    def opened(self) -> float:
        """When it began, in monotonic time."""

    @property
    def last_active(self) -> float:
        """When something moved last, in monotonic time."""

    @property
    def state(self) -> enum.StrEnum:
        """Where it is in its life."""

    @property
    def reason(self) -> Reason | None:
        """Why it ended; None while it lives."""

    @property
    def client(self) -> Address:
        """The client's address."""

    @property
    def frontend(self) -> Address | None:
        """The original destination, if that is known."""

    @property
    def source(self) -> Address | None:
        """Our own address on the backend's side, while there is one."""

    @property
    def backend(self) -> LiveBackend | None:
        """Where it goes, while it goes anywhere."""

    @property
    def bytes_up(self) -> int:
        """Bytes that came from the client."""

    @property
    def bytes_down(self) -> int:
        """Bytes that came from the backend."""

    def facts(self) -> Facts:
        """What it tells of itself now."""

    def equip(self) -> bool:
        """Give it what short ones are spared; returns whether that is settled."""

    def end(self, event: Event) -> None:
        """End it from outside."""

    def abort(self) -> None:
        """Give it up: something failed that never should."""


class ConnectionTable:
    """All live connections by number.

    Args:
        counters: of this process.
        recorded: so many that are over are remembered.

    Attributes:
        live: the connections, oldest first.
        counters: of this process.
        name: what their ids begin with: the pid, unless another worker has that too.
        traffic: adds up what they carry.
        recorder: remembers those that are over.
    """

    def __init__(self, counters: Counters, *, recorded: int = 0) -> None:
        self.live: dict[int, Relayed] = {}
        self.counters = counters
        self.traffic = Traffic(counters)
        self.name = os.getpid()
        self.recorder = Recorder(recorded)
        self._swept = 0
        self._dialling: list[Relayed] = []

    def next_number(self) -> int:
        """A number that no connection had before."""
        self.counters.connections_opened += 1
        return self.counters.connections_opened

    def add(self, connection: Relayed) -> None:
        """Take in a connection that was accepted."""
        self.live[connection.number] = connection
        self.traffic.began(connection)

    def add_up(self) -> Iterator[None]:
        """As of `Traffic.add_up`, for those that live now."""
        return self.traffic.add_up(tuple(self.live.values()))

    def id_of(self, connection: Relayed) -> str:
        """What an operator calls it."""
        return str(ConnectionId(self.name, connection.number))

    def remove(self, connection: Relayed) -> None:
        """Forget a connection that is over."""
        self.live.pop(connection.number, None)
        if connection.reason is not None:
            self.counters.connections_ended[connection.reason.value] += 1
        self.traffic.ended(connection)
        self.recorder.ended(connection, self.name)

    def turn_away(self, service: LiveService, client: socket, peer: tuple[str, int]) -> None:
        """Reset a client that has as many connections as it may, and remember that."""
        number = self.next_number()
        self.counters.clients_turned_away += 1
        self.counters.connections_ended[Reason.TOO_MANY.value] += 1
        self.recorder.keep(turned_away(service, client, peer, number, self.name), Reason.TOO_MANY)
        reset(client)

    def sweep(self) -> None:
        """Equip those that have come since the last call and still live, with what short ones are spared.

        That is system calls. Who has no backend yet is looked at again.
        """
        swept, self._swept = self._swept, self.counters.connections_opened
        fresh = takewhile(lambda one: one.number > swept, reversed(self.live.values()))
        self._dialling = [one for one in chain(self._dialling, fresh) if not one.equip()]

    def rows(self, wanted: ConnectionFilter) -> Iterator[list[ConnectionRow]]:
        """The matching connections, in chunks: whoever sends them on yields to the loop in between."""
        for chunk in self._chunks(None, wanted):
            yield [_row(one, self.id_of(one)) for one in chunk]

    def records(self, wanted: RecordFilter) -> Iterator[list[Record]]:
        """The matching ones with all that is known of them, in chunks: those that are over first."""
        if wanted.ended:
            yield from self.recorder.matching(wanted)
        if wanted.live:
            for chunk in self._chunks(None, wanted.connections):
                found = (record_of(one, self.name) for one in chunk)
                yield [record for record in found if wanted.matches(record)]

    def kill(self, numbers: Iterable[int] | None, wanted: ConnectionFilter) -> Iterator[int]:
        """Reset the matching connections, in chunks: whoever wants them dead yields to the loop in between.

        Args:
            numbers: of the connections to look at; None for all.
            wanted: what they must have.

        Yields:
            How many were reset.
        """
        for chunk in self._chunks(numbers, wanted):
            for one in chunk:
                one.end(Event.KILLED)
            yield len(chunk)

    def _chunks(self, numbers: Iterable[int] | None, wanted: ConnectionFilter) -> Iterator[list[Relayed]]:
        looked_at = iter(list(self.live) if numbers is None else numbers)
        while chunk := list(islice(looked_at, _CHUNK)):
            found = (self.live.get(number) for number in chunk)
            yield [one for one in found if one is not None and _matches(wanted, one)]


def _matches(wanted: ConnectionFilter, connection: Relayed) -> bool:
    backend = connection.backend
    return wanted.matches(
        connection.service.pool.service,
        connection.client,
        backend.address if backend else None,
    ) and (wanted.source is None or wanted.has_source(connection.source))


def _row(connection: Relayed, name: str) -> ConnectionRow:
    now = monotonic()
    age = now - connection.opened
    pool = connection.service.pool
    source, backend, frontend = connection.source, connection.backend, connection.frontend
    return ConnectionRow(
        id=name,
        protocol=(pool.protocol if isinstance(pool, Serve) else IpProtocol.TCP).value,
        service=str(pool.service),
        client=str(connection.client),
        frontend=str(frontend) if frontend else "",
        listener=str(pool.listener) if isinstance(pool, Serve) else None,
        source=str(source) if source else "",
        backend=str(backend.address) if backend else "",
        state=connection.state.value,
        path=Path.REDIRECT_TO_HOST.value,
        started_at=datetime.fromtimestamp(time() - age, UTC).isoformat(timespec="milliseconds"),
        age_seconds=round(age, 3),
        idle_seconds=round(max(0.0, now - connection.last_active), 3),
        bytes_up=connection.bytes_up,
        bytes_down=connection.bytes_down,
    )
