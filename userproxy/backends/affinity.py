"""Session affinity: a client IP keeps its backend for some time after its last new connection. Pure.

| what happens | then |
|---|---|
| a client that is not known | the balancer picks, and the client is pinned to that backend |
| a new connection of a known one | goes there, and its time begins anew |
| the backend is gone, or cannot be reached | the client is pinned to the next one, and stays with that |
| the timeout is edited | it holds at once, counted from each client's last connection |
| more clients than are remembered | the one that was not heard of for the longest is forgotten |

The workers of a node tell each other of their pins (`news`, `learn`), so that it does not matter which of
them accepts a connection. Source: kube-proxy's `pkg/proxy/userspace/roundrobin.go`, but for its timeouts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from userproxy.model.heritage import Pin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from userproxy.model.address import Address

MOST_CLIENTS = 32768
"""Remembered for one pool: about 8 MB of a worker's memory, in the worst case."""

_TELL_SHARE = 0.1
"""Others hear of a client's new connections once in this share of the timeout: theirs then ends that much
early at most."""


class _Pinned(NamedTuple):
    backend: Address
    used: float
    told: float


class Affinity:
    """The pins of one pool. Times are monotonic seconds.

    Args:
        most: clients to remember.
    """

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self._most = most
        self._pins: OrderedDict[str, _Pinned] = OrderedDict()  # whoever was heard of last is at the end
        self._news: set[str] = set()

    def __len__(self) -> int:
        return len(self._pins)

    def backend_of(self, client: str, now: float, timeout: float) -> Address | None:
        """Where a client is pinned to; None if nowhere, or if its time is over."""
        pinned = self._pins.get(client)
        if pinned is None:
            return None
        if now - pinned.used >= timeout:
            del self._pins[client]
            return None
        return pinned.backend

    def pin(self, client: str, backend: Address, now: float, timeout: float) -> bool:
        """A client has a new connection to a backend: it stays there. Whether that is news to others."""
        known = self._pins.get(client)
        told = known.told if known is not None and known.backend == backend else -math.inf
        is_news = now - told >= timeout * _TELL_SHARE
        if is_news:
            self._news.add(client)
            told = now
        self._put(client, _Pinned(backend, now, told))
        return is_news

    def news(self, now: float) -> list[Pin]:
        """The pins that the others have yet to hear of."""
        fresh, self._news = self._news, set()
        return [self._told(client, now) for client in fresh if client in self._pins]

    def all(self, now: float) -> Iterator[Pin]:
        """All pins, the oldest first."""
        return (self._told(client, now) for client in self._pins)

    def learn(self, pins: Iterable[Pin], now: float) -> None:
        """Take over what another worker knows, unless this one has heard of the client later."""
        for pin in pins:
            used = now - pin.idle
            known = self._pins.get(pin.client)
            if known is None or known.used < used:
                self._put(pin.client, _Pinned(pin.backend, used, now))

    def forget(self, client: str) -> None:
        """A client is not where it was pinned to."""
        self._pins.pop(client, None)
        self._news.discard(client)

    def clear(self) -> None:
        """Forget everybody."""
        self._pins.clear()
        self._news.clear()

    def _put(self, client: str, pinned: _Pinned) -> None:
        self._pins[client] = pinned
        self._pins.move_to_end(client)
        if len(self._pins) > self._most:
            forgotten, _ = self._pins.popitem(last=False)
            self._news.discard(forgotten)

    def _told(self, client: str, now: float) -> Pin:
        pinned = self._pins[client]
        return Pin(client, pinned.backend, max(0.0, now - pinned.used))
