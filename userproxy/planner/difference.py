"""What differs between two states that share most of their values. Pure.

A state of 10,000 Services changes a few at a time. Even to look at all of them takes milliseconds: they are
scattered in memory. So a state is made of the one before (`patched`), and remembers in what it differs.

States of which neither was made of the other are compared, from both ends, a block at a time: whatever did
not change is the same object in the same place, and comparing lists of the same objects is what Python does
fastest.
"""

from __future__ import annotations

from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")

_REMEMBERED = 64
"""Steps back. Whoever missed more of them compares everything."""

_MOST_OF_A_STEP = 1000
"""Keys. A step that changes more is not worth remembering."""

_BLOCK = 256


class _Step(NamedTuple):
    """What was changed in one version to make the next one."""

    version: int
    keys: tuple[Any, ...]


class _Version(dict[K, V]):
    """One state of a dictionary, which is changed no more, and the last steps that led there."""

    __slots__ = ("number", "steps")

    def __init__(self, before: Mapping[K, V], steps: tuple[_Step, ...]) -> None:
        super().__init__(before)
        self.number = next(_numbers)
        self.steps = steps


_numbers = count()


def patched(before: dict[K, V], put: Mapping[K, V], drop: Iterable[K] = ()) -> dict[K, V]:
    """A copy with other values under some keys, or `before` itself if that makes no difference.

    Args:
        before: which must not be changed in place, no more than the copy.
        put: what is to be under these keys. A value that is equal to the former one leaves that in place.
        drop: keys to leave out; unless they are in `put`.
    """
    changed = [key for key, value in put.items() if key not in before or before[key] != value]
    gone = [key for key in drop if key in before and key not in put]
    if not changed and not gone:
        return before
    steps: tuple[_Step, ...] = ()
    if isinstance(before, _Version) and len(changed) + len(gone) <= _MOST_OF_A_STEP:
        steps = (*before.steps[1 - _REMEMBERED :], _Step(before.number, (*changed, *gone)))
    copy = _Version(before, steps)
    for key in gone:
        del copy[key]
    for key in changed:
        copy[key] = put[key]
    return copy


def touched(new: dict[K, V], old: dict[K, V]) -> list[K]:
    """The keys of `new` under which `old` has something else, or nothing."""
    if new is old:
        return []
    suspects = _suspects(new, old)
    if suspects is not None:
        return [key for key in suspects if key in new and (key not in old or old[key] != new[key])]
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
    suspects = _suspects(new, old)
    if suspects is not None:
        return [key for key in suspects if key in old and key not in new]
    keys = list(old)
    head, tail = _common_ends(list(new), keys)
    return [key for key in keys[head : len(keys) - tail] if key not in new]


def _suspects(new: dict[K, V], old: dict[K, W]) -> Iterable[K] | None:
    """The keys under which the two may differ; None if that is not known."""
    if not (isinstance(new, _Version) and isinstance(old, _Version)):
        return None
    for index, step in enumerate(new.steps):
        if step.version == old.number:
            return dict.fromkeys(chain.from_iterable(each.keys for each in new.steps[index:]))
    return None


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
