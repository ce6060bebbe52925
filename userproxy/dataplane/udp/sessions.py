"""Who has a session, and who was heard of least recently. Pure.

| what ends a session | which |
|---|---|
| nothing has moved for its Service's idle time | each such one |
| as many as its Service allows | the one of that Service that was used least recently |
| as many as this process may have | of all |
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Peer = tuple[Any, ...]
"""A client's address as the kernel gives it: IP, port, and for IPv6 more."""


class Used(Protocol):
    """What a session must tell."""

    @property
    def number(self) -> int:
        """Unique among all."""

    @property
    def peer(self) -> Peer:
        """The client's address."""

    @property
    def last_active(self) -> float:
        """When a datagram moved last, in monotonic time."""


L = TypeVar("L")
S = TypeVar("S", bound=Used)


class Sessions(Generic[L, S]):
    """The sessions of all listeners, in the order of their last use.

    Args:
        most: that there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._all: OrderedDict[int, S] = OrderedDict()
        self._by_listener: dict[L, OrderedDict[Peer, S]] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._all) >= self.most

    def oldest(self) -> S | None:
        """The one that was used least recently."""
        return next(iter(self._all.values()), None)

    def oldest_of(self, listener: L) -> S | None:
        """Likewise, of a listener's."""
        return next(iter(self._by_listener.get(listener, {}).values()), None)

    def find(self, listener: L, peer: Peer) -> S | None:
        """A client's session at a listener."""
        of = self._by_listener.get(listener)
        return None if of is None else of.get(peer)

    def all_of(self, listener: L) -> list[S]:
        """The sessions of a listener, the one that was used least recently first."""
        return list(self._by_listener.get(listener, {}).values())

    def add(self, listener: L, session: S) -> None:
        """Take in a session; it has just been used."""
        self._all[session.number] = session
        self._by_listener.setdefault(listener, OrderedDict())[session.peer] = session

    def touch(self, listener: L, session: S) -> None:
        """A session has just been used."""
        self._all.move_to_end(session.number)
        self._by_listener[listener].move_to_end(session.peer)

    def remove(self, listener: L, session: S) -> None:
        """Forget a session, if it is there."""
        self._all.pop(session.number, None)
        of = self._by_listener.get(listener)
        if of is not None and of.get(session.peer) is session:
            del of[session.peer]
            if not of:
                del self._by_listener[listener]

    def idle(self, listener: L, since: float) -> Iterator[S]:
        """Those of a listener not used since then; each must be gone before the next one is asked for."""
        while (session := self.oldest_of(listener)) is not None and session.last_active <= since:
            yield session

    @property
    def listeners(self) -> list[L]:
        """Those that have sessions."""
        return list(self._by_listener)
