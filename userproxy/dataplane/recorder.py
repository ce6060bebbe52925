"""Remembers how connections ended, and tells the access log.

The last so many are kept, each as some two hundred bytes, so that it costs little to keep them and nothing to
have kept them. A worker that is about to end gives its own to the one that takes its place.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import chain, islice
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol

import msgspec

from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.records import Record
from userproxy.model.service import Protocol as IpProtocol
from userproxy.model.state import Serve
from userproxy.net.sockets import original_sockaddr

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable, Iterator, Sequence

    from userproxy.backends.service import LiveService
    from userproxy.dataplane.connections import Relayed
    from userproxy.model.filter import RecordFilter
    from userproxy.model.records import CarriedFields

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode

# Records looked at in one go: well under a millisecond's worth of a connection's waiting.
_CHUNK = 200


class Log(Protocol):
    """The access log."""

    def wants(self, reason: Reason) -> bool:
        """Whether an end for this reason is logged."""

    def tell(self, record: Record) -> None:
        """Log an end. Nobody's connection waits for that."""

    def write_to(self, fd: int) -> None:
        """Write to this file from now on, and own it."""

    def close(self) -> None:
        """Write what waits."""


class Recorder:
    """The connections of a worker that are over, the latest ones. Lives as long as the data plane.

    Args:
        most: that are kept; 0: none are.

    Attributes:
        log: where ends are logged; None: nowhere.
    """

    def __init__(self, most: int) -> None:
        self.log: Log | None = None
        self._most = most
        self._own: deque[bytes] = deque(maxlen=most)
        self._inherited: deque[bytes] = deque()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._own) + len(self._inherited)

    @property
    def size(self) -> int:
        """Bytes of what is kept."""
        return sum(map(len, chain(self._own, self._inherited)))

    def original(self, client: socket) -> bytes | None:
        """The original destination of an accepted socket, if it is to be remembered."""
        return original_sockaddr(client) if self._most or self.log is not None else None

    def ended(self, connection: Relayed, name: int) -> None:
        """A connection is over.

        Args:
            connection: which.
            name: of the worker.
        """
        reason, log = connection.reason, self.log
        logs = log is not None and reason is not None and log.wants(reason)
        if (self._most or logs) and reason is not Reason.HANDED_OVER:
            self._keep(_packed(connection, name), log if logs else None)

    def keep(self, record: Record | CarriedFields, reason: Reason) -> None:
        """A connection is over that was none of the relay's, or never began."""
        log = self.log
        logs = log is not None and log.wants(reason)
        if self._most or logs:
            self._keep(_encode(record), log if logs else None)

    def _keep(self, packed: bytes, log: Log | None) -> None:
        if self._most:
            if self._inherited and len(self) >= self._most:
                self._inherited.popleft()
            self._own.append(packed)
        if log is not None:
            log.tell(_decode(packed))

    def log_to(self, fd: int) -> None:
        """Ends are logged to this file from now on."""
        if self.log is None:
            os.close(fd)
        else:
            self.log.write_to(fd)

    def stop(self) -> None:
        """Nothing ends any more."""
        if self.log is not None:
            self.log.close()

    def matching(self, wanted: RecordFilter) -> Iterator[list[Record]]:
        """Those that match, in chunks: whoever sends them on yields to the loop in between."""
        kept = chain(list(self._inherited), list(self._own))
        while chunk := list(islice(kept, _CHUNK)):
            yield [record for record in map(_decode, chunk) if wanted.matches(record)]

    def give(self) -> Iterator[Sequence[bytes]]:
        """All that is kept, the oldest first, for another worker to `inherit`, in chunks."""
        kept = chain(self._inherited, self._own)
        return iter(lambda: list(islice(kept, _CHUNK)), [])

    def take(self) -> Iterator[Sequence[bytes]]:
        """The same, and keep nothing of it here."""
        kept = [*self._inherited, *self._own]
        self._inherited.clear()
        self._own.clear()
        return iter(kept[start : start + _CHUNK] for start in range(0, len(kept), _CHUNK))

    def inherit(self, records: Iterable[bytes]) -> None:
        """Keep records of a worker that is gone, as long as there is room beside this one's own."""
        self._inherited.extend(records)
        while self._inherited and len(self) > self._most:
            self._inherited.popleft()


def record_of(connection: Relayed, name: int) -> Record:
    """What is known of a connection now, be it live or over."""
    return _decode(_packed(connection, name))


def turned_away(
    service: LiveService, client: socket, peer: tuple[str, int], number: int, name: int
) -> Record:
    """A client that was reset before it was anything."""
    pool = service.pool
    return Record(
        pid=name,
        number=number,
        service=pool.service,
        protocol=IpProtocol.TCP,
        listener=pool.listener if isinstance(pool, Serve) else None,
        began=time(),
        seconds=0.0,
        client=Address(*peer),
        original=original_sockaddr(client),
        reason=Reason.TOO_MANY,
    )


def _packed(connection: Relayed, name: int) -> bytes:
    """The same as `Record`, encoded: this is done at each end, so nothing is made that is not needed."""
    pool = connection.service.pool
    seconds = monotonic() - connection.opened
    head = (
        (name, connection.number, pool.service, pool.protocol, pool.listener)
        if isinstance(pool, Serve)
        else (name, connection.number, pool.service, IpProtocol.TCP, None)
    )
    return _encode((*head, time() - seconds, seconds, *connection.facts()))
