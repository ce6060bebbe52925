"""What differs between two states that share most of their values. Pure.

A state of 10,000 Services changes a few at a time, and whatever did not change is the same object as before,
in the same place. Comparing lists of the same objects is what Python does fastest, in a few nanoseconds each:
so two versions of a dictionary are compared from both ends, a block at a time, and only what lies between is
looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")

_BLOCK = 256


def touched(new: dict[K, V], old: dict[K, V]) -> list[K]:
    """The keys of `new` under which `old` has something else, or nothing."""
    if new is old:
        return []
    keys = list(new)
    head, tail = _common_ends(keys, list(old))
    values, others = list(new.values()), list(old.values())
    middle = (key for key in keys[head : len(keys) - tail] if key not in old or old[key] != new[key])
    return [
        *(keys[index] for index in _differing(values[:head], others[:head])),
        *middle,
        *(
            keys[len(keys) - tail + index]
            for index in _differing(values[len(values) - tail :], others[len(others) - tail :])
        ),
    ]


def dropped(new: dict[K, V], old: dict[K, W]) -> list[K]:
    """The keys of `old` that `new` lacks."""
    if new is old:
        return []
    keys = list(old)
    head, tail = _common_ends(list(new), keys)
    return [key for key in keys[head : len(keys) - tail] if key not in new]


def _common_ends(one: list[K], other: list[K]) -> tuple[int, int]:
    """With how many equal keys both begin, and with how many more both end."""
    shorter = min(len(one), len(other))
    head = next(_differing(one[:shorter], other[:shorter]), shorter)
    if head == shorter:
        return head, 0
    rest = shorter - head
    tail = next(_differing(one[::-1][:rest], other[::-1][:rest]), rest)
    return head, tail


def _differing(one: list[V], other: list[V]) -> Iterator[int]:
    """The indices at which two lists of the same length differ."""
    for start in range(0, len(one), _BLOCK):
        block, counterpart = one[start : start + _BLOCK], other[start : start + _BLOCK]
        if block != counterpart:
            for index, (value, before) in enumerate(zip(block, counterpart, strict=True), start):
                if value is not before and value != before:
                    yield index
