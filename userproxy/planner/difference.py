"""What differs between two states that share most of their values. Pure.

A state of 10,000 Services changes a few at a time, and whatever did not change is the same object as before,
in the same place. So two versions of a dictionary are compared by identity from both ends, without a look at
any key and in a fraction of a millisecond; only what lies between is looked up.
"""

from __future__ import annotations

from itertools import compress, count, islice
from operator import is_not
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")


def touched(new: dict[K, V], old: dict[K, V]) -> list[K]:
    """The keys of `new` under which `old` has another object, or nothing. Equal is not the same."""
    if new is old:
        return []
    head, tail = _common_ends(new, old)
    found = list(compress(islice(new, head), map(is_not, new.values(), old.values())))
    found += [key for key in islice(new, head, len(new) - tail) if old.get(key) is not new[key]]
    ends = map(is_not, reversed(new.values()), reversed(old.values()))
    found += compress(islice(reversed(new), tail), ends)
    return found


def dropped(new: dict[K, V], old: dict[K, W]) -> list[K]:
    """The keys of `old` that `new` lacks."""
    if new is old:
        return []
    head, tail = _common_ends(new, old)
    return [key for key in islice(old, head, len(old) - tail) if key not in new]


def _common_ends(new: dict[K, V], old: dict[K, W]) -> tuple[int, int]:
    """With how many of the very same keys both begin, and with how many more both end."""
    shorter = min(len(new), len(old))
    head = _first(map(is_not, new, old), shorter)
    tail = _first(map(is_not, reversed(new), reversed(old)), shorter)
    return head, min(tail, shorter - head)


def _first(differs: Iterable[bool], otherwise: int) -> int:
    return next(compress(count(), differs), otherwise)
