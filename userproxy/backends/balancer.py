"""Which backend takes the next connection. Pure.

A balancer knows the backends that may be picked, in their order; who may be is decided elsewhere
(`userproxy.backends.rotation`). An update keeps what it can: the turn in a rotation, and the backend
that a source hash leads to.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from userproxy.model.settings import Balance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from userproxy.model.address import Address

LEAST_WEIGHT = 0.1
"""The share of a backend that has just come, while others have 1."""


class Candidate(Protocol):
    """What a balancer picks.

    Attributes:
        connections: how many live connections are on it.
    """

    connections: int

    @property
    def address(self) -> Address:
        """The backend's address: its identity over updates."""
        ...


C = TypeVar("C", bound=Candidate)

Weigh: TypeAlias = "Callable[[C], float]"
"""The share of a backend, `LEAST_WEIGHT` to 1."""


def warmth(age: float, slow_start: float) -> float:
    """The weight of a backend in its slow start: from 10 % to all of its share, evenly.

    Args:
        age: seconds since it came (back).
        slow_start: how many seconds the start takes.
    """
    if age >= slow_start:
        return 1.0
    return LEAST_WEIGHT + (1.0 - LEAST_WEIGHT) * max(0.0, age) / slow_start


class Balancer(Generic[C]):
    """What all balancers have in common.

    Args:
        draw: a number at random, at least 0 and below 1.

    Attributes:
        is_bound_to_clients: whether it depends on the client who is picked.
    """

    is_bound_to_clients = False

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._candidates: tuple[C, ...] = ()

    @property
    def candidates(self) -> tuple[C, ...]:
        """All that may be picked, in the order of picking."""
        return self._candidates

    def update(self, candidates: tuple[C, ...]) -> None:
        """Replace the candidates."""
        self._candidates = candidates

    def pick(self, tried: tuple[C, ...] = (), client: str = "", weigh: Weigh[C] | None = None) -> C | None:
        """The backend for a connection, none of those tried; None when there is no other.

        Args:
            tried: the backends that this connection has failed to reach.
            client: the client's IP.
            weigh: the share of each backend; None while all have the same.
        """
        raise NotImplementedError

    def may_probe(self, client: str, ejected: C, among: Iterable[C]) -> bool:  # noqa: ARG002 - as for all balancers
        """Whether a client's connection may see whether an ejected backend is back.

        Anybody's may where a choice is not bound to the client. Where it is, whoever belongs to another one
        would lose what it has there.

        Args:
            client: the client's IP.
            ejected: the backend.
            among: all that would be picked from if those that are ejected were well.
        """
        return True

    def _untried(self, tried: tuple[C, ...]) -> tuple[C, ...]:
        if not tried:
            return self._candidates
        return tuple(candidate for candidate in self._candidates if candidate not in tried)


class RoundRobin(Balancer[C]):
    """Each backend in turn.

    An update keeps the position: whoever would have been next still is, or the one that followed it. So
    endpoints that come and go neither restart the rotation nor favour anybody. A backend with a smaller share
    lets some of its turns pass.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__(draw)
        self._next = 0

    def update(self, candidates: tuple[C, ...]) -> None:
        """Replace the candidates, keeping the position."""
        places = {candidate.address: place for place, candidate in enumerate(candidates)}
        upcoming = self._candidates[self._next :] + self._candidates[: self._next]
        self._next = next((places[old.address] for old in upcoming if old.address in places), 0)
        self._candidates = candidates

    def pick(
        self,
        tried: tuple[C, ...] = (),
        client: str = "",  # noqa: ARG002 - as for all balancers
        weigh: Weigh[C] | None = None,
    ) -> C | None:
        """The next in turn."""
        found = self._next_in_turn(tried, weigh)
        if found is None and weigh is not None:  # everybody let it pass
            return self._next_in_turn(tried, None)
        return found

    def _next_in_turn(self, tried: tuple[C, ...], weigh: Weigh[C] | None) -> C | None:
        candidates = self._candidates
        for _ in range(len(candidates)):
            place = self._next
            candidate = candidates[place]
            self._next = place + 1 if place + 1 < len(candidates) else 0
            if candidate not in tried and (weigh is None or self._draw() < weigh(candidate)):
                return candidate
        return None


class LeastConnections(Balancer[C]):
    """The backend with the fewest live connections; of several, each in turn."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__(draw)
        self._turn = 0

    def pick(
        self,
        tried: tuple[C, ...] = (),
        client: str = "",  # noqa: ARG002 - as for all balancers
        weigh: Weigh[C] | None = None,
    ) -> C | None:
        """The one with the least to do for its share."""
        untried = self._untried(tried)
        if not untried:
            return None
        self._turn = start = (self._turn + 1) % len(untried)
        return min(untried[start:] + untried[:start], key=_load(weigh))


class RandomTwo(Balancer[C]):
    """Of two backends at random, the one with fewer live connections.

    Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
    """

    def pick(
        self,
        tried: tuple[C, ...] = (),
        client: str = "",  # noqa: ARG002 - as for all balancers
        weigh: Weigh[C] | None = None,
    ) -> C | None:
        """The better of two."""
        untried = self._untried(tried)
        if not untried:
            return None
        count = len(untried)
        first = int(self._draw() * count)
        if count == 1:
            return untried[first]
        second = (first + 1 + int(self._draw() * (count - 1))) % count
        return min(untried[first], untried[second], key=_load(weigh))


class SourceHash(Balancer[C]):
    """A client IP gets the same backend for as long as that one may be picked, and after a restart again.

    Rendezvous hashing: each backend scores for a client, and the highest wins, so that a backend that comes
    or goes moves only its own share of the clients. Source: Thaler and Ravishankar, IEEE/ACM Transactions on
    Networking 6(1), 1998; the weights are those of Schindelhauer and Schomaker, SPAA 2005.
    """

    is_bound_to_clients = True

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__(draw)
        self._scored: tuple[tuple[int, C], ...] = ()

    def update(self, candidates: tuple[C, ...]) -> None:
        """Replace the candidates."""
        super().update(candidates)
        self._scored = tuple((_digest(str(candidate.address)), candidate) for candidate in candidates)

    def pick(self, tried: tuple[C, ...] = (), client: str = "", weigh: Weigh[C] | None = None) -> C | None:
        """The one that scores highest for the client."""
        key = _digest(client)
        best, found = -math.inf, None
        for seed, candidate in self._scored:
            mixed = _mix(key ^ seed)
            score: float = mixed
            if weigh is not None:
                score = -weigh(candidate) / math.log((mixed + 1) / (_WORD + 2))
            if score > best and candidate not in tried:
                best, found = score, candidate
        return found

    def may_probe(self, client: str, ejected: C, among: Iterable[C]) -> bool:
        """Only if it would be the client's own."""
        key = _digest(client)

        def score(candidate: C) -> int:
            return _mix(key ^ _digest(str(candidate.address)))

        least = score(ejected)
        return all(other is ejected or score(other) < least for other in among)


def make_balancer(balance: Balance, draw: Callable[[], float]) -> Balancer[C]:
    """The balancer of that name.

    Args:
        balance: which one.
        draw: a number at random, at least 0 and below 1.
    """
    kinds: dict[Balance, type[Balancer[C]]] = {
        Balance.ROUND_ROBIN: RoundRobin,
        Balance.LEAST_CONNECTIONS: LeastConnections,
        Balance.RANDOM_TWO: RandomTwo,
        Balance.SOURCE_HASH: SourceHash,
    }
    return kinds[balance](draw)


def _load(weigh: Weigh[C] | None) -> Callable[[C], float]:
    if weigh is None:
        return _connections
    return lambda candidate: (candidate.connections + 1) / weigh(candidate)


def _connections(candidate: Candidate) -> float:
    return candidate.connections


_WORD = 2**64 - 1


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _mix(word: int) -> int:
    """Every bit of the word in every bit of the result: the finalizer of MurmurHash3."""
    word = ((word ^ (word >> 33)) * 0xFF51AFD7ED558CCD) & _WORD
    word = ((word ^ (word >> 33)) * 0xC4CEB9FE1A85EC53) & _WORD
    return word ^ (word >> 33)
