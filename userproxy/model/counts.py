"""What a process of the data side has counted."""

from __future__ import annotations

import msgspec

from userproxy.model.address import Address
from userproxy.model.service import PoolName


class BackendCount(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker knows of one backend.

    Attributes:
        address: the backend's.
        connections: live ones on it.
        latency: seconds that connecting to it took last; None before the first time.
        state: `up`, `down` (by checks), `ejected` (by clients' dials), or `removed`: the Service has it no
            longer, and connections on it live on.
        reason: why; empty where there is nothing to say.
        seconds: since when it is in that state, counted from now.
        node: of a removed one.
        zone: of a removed one.
    """

    address: Address
    connections: int
    latency: float | None
    state: str = "up"
    reason: str = ""
    seconds: float = 0.0
    node: str = ""
    zone: str = ""


class ServiceCount(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker knows of one Service port; only those that ever had a connection or a check are told.

    Attributes:
        pool: its name.
        connections: live ones.
        backends: of which there is something to tell.
    """

    pool: PoolName
    connections: int
    backends: tuple[BackendCount, ...]


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has and takes, and how much of it there may be.

    Attributes:
        worker: its place.
        connection_limit: over so many, accepting waits.
        files: open ones.
        file_limit: how many there may be.
        pipes: that hold bytes at the moment.
        pipe_limit: over so many, bytes are copied.
        sessions: of UDP clients.
        session_limit: over so many, the one that was heard of least recently gives way.
        resident_bytes: of memory.
    """

    worker: int
    connection_limit: int
    files: int
    file_limit: int
    pipes: int
    pipe_limit: int
    sessions: int
    session_limit: int
    resident_bytes: int
