"""Who may be picked, and in which order the others are tried when everything else has failed. Pure.

| rule | why |
|---|---|
| at most half of the backends are ejected, and never the last one | clients' dials are scant evidence |
| while more than half look dead, ejections do not count | most likely it is us, or the network |
| what an active check found down stays out | it is asked again and again, and says when it is back |
| while more than half of the near ones are out, far ones join in | the near ones would carry too much |
| whoever is out is tried last, before a client is sent away | a wrong judgement must cost no connection |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_EJECTED = 0.5
PANIC = 0.5
SPILL = 0.5


class Judged(Protocol):
    """A backend on which there is a judgement."""

    @property
    def ejected(self) -> bool:
        """Whether clients' dials took it out."""
        ...

    @property
    def down(self) -> bool:
        """Whether an active check took it out."""
        ...


J = TypeVar("J", bound=Judged)


class Rotation(NamedTuple, Generic[J]):
    """The order of a Service's backends.

    Attributes:
        first: that may be picked. Empty only if there is no backend at all.
        last: that are tried when all of the first have failed, in this order.
        panic: most backends look dead, so that ejections do not count.
    """

    first: tuple[J, ...]
    last: tuple[J, ...]
    panic: bool


def may_eject(backends: Sequence[Judged]) -> bool:
    """Whether one more of these may be ejected."""
    ejected = sum(backend.ejected for backend in backends)
    return ejected + 1 <= len(backends) * MOST_EJECTED


def rotate(near: Sequence[J], far: Sequence[J], supposed_well: J | None = None) -> Rotation[J]:
    """Put the backends in order.

    Args:
        near: that are to be picked.
        far: that may stand in for them.
        supposed_well: one that is taken for well, whatever is said of it: where would it be?
    """
    dead = sum(backend.ejected or backend.down for backend in (*near, *far) if backend is not supposed_well)
    panic = dead > PANIC * (len(near) + len(far))

    def is_out(backend: J) -> bool:
        return backend is not supposed_well and (backend.down or (backend.ejected and not panic))

    first = [backend for backend in near if not is_out(backend)]
    if len(near) - len(first) > SPILL * len(near) or not near:
        first += [backend for backend in far if not is_out(backend)]
    if not first:
        first = [backend for backend in near or far if not backend.down] or list(near or far)
    chosen = set(map(id, first))
    others = [backend for backend in (*near, *far) if id(backend) not in chosen]
    others.sort(key=lambda backend: (backend.down, backend.ejected))  # stable: the near ones stay in front
    return Rotation(tuple(first), tuple(others), panic)
