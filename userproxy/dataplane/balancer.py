"""Which backend takes the next connection. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from userproxy.model.address import Address


class Candidate(Protocol):
    """What a balancer picks: anything with an address."""

    @property
    def address(self) -> Address:
        """The backend's address: its identity over updates."""
        ...


C = TypeVar("C", bound=Candidate)


class RoundRobin(Generic[C]):
    """Each backend in turn.

    An update keeps the position: whoever would have been next still is, or the one that followed it. So
    endpoints that come and go neither restart the rotation nor favour anybody.
    """

    def __init__(self, candidates: tuple[C, ...] = ()) -> None:
        self._candidates = candidates
        self._next = 0

    @property
    def candidates(self) -> tuple[C, ...]:
        """All that may be picked, in the order of picking."""
        return self._candidates

    def update(self, candidates: tuple[C, ...]) -> None:
        """Replace the candidates, keeping the position."""
        places = {candidate.address: place for place, candidate in enumerate(candidates)}
        upcoming = self._candidates[self._next :] + self._candidates[: self._next]
        self._next = next((places[old.address] for old in upcoming if old.address in places), 0)
        self._candidates = candidates

    def pick(self, tried: tuple[C, ...] = ()) -> C | None:
        """The next backend that is not among those tried; None when there is none.

        Args:
            tried: the backends that this connection has failed to reach.
        """
        candidates = self._candidates
        for _ in range(len(candidates)):
            place = self._next
            candidate = candidates[place]
            self._next = place + 1 if place + 1 < len(candidates) else 0
            if candidate not in tried:
                return candidate
        return None
