"""What a process of the data side knows, for another one to go on with."""

from __future__ import annotations

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import PoolName


class Pin(msgspec.Struct, frozen=True, array_like=True):
    """Where a client IP goes.

    Attributes:
        client: its IP.
        backend: the address that it is pinned to.
        idle: seconds since its last new connection.
    """

    client: str
    backend: Address
    idle: float


class Judgement(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a backend, for another process to go on with.

    Attributes:
        backend: its address.
        failures: of clients' dials in a row, as `Outlier` counts them.
        ejections: how often it has been ejected lately.
        hold: seconds that the last time was, or is, to be.
        until: seconds until it may be probed; None: it is not ejected.
        recovered: seconds since it came back from the last time; 0 while it is ejected.
        error: the errno of the last dial that failed.
        down: why checks took it out; None: they have not.
        age: seconds since it came, or came back; None: it was there before anybody looked.
    """

    backend: Address
    failures: int = 0
    ejections: int = 0
    hold: float = 0.0
    until: float | None = None
    recovered: float = 0.0
    error: int = 0
    down: str | None = None
    age: float | None = None


class SessionState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A UDP client's session, for another worker to go on with.

    Attributes:
        pool: whose traffic it is.
        client: whose session.
        backend: that its socket is connected to.
        age: seconds since it began.
        idle: seconds since its last datagram.
        bytes_up: from the client.
        bytes_down: from backends.
        asked: datagrams from the client.
        answered: datagrams from backends.
    """

    pool: PoolName
    client: Address
    backend: Address
    age: float
    idle: float
    bytes_up: int
    bytes_down: int
    asked: int
    answered: int
