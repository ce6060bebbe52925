"""What differs between two states that share most of their values. Pure.

A state of 10,000 Services changes a few at a time. Even to copy it, or to look at all of it, takes
milliseconds: its values are scattered in memory. So a state shares what it can with the one that it was made
of (`patched`), and remembers in what it differs.

States of which neither was made of the other are compared, from both ends, a block at a time: whatever did
not change is the same object in the same place, and comparing lists of the same objects is what Python does
fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, ValuesView

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")

_REMEMBERED = 64
"""Steps back. Whoever missed more of them compares everything."""

_MOST_OF_A_STEP = 1000
"""Keys. A step that changes more is not worth remembering."""

_MOST_ABOVE = 500
"""Keys in which a state may differ from the dictionary that it shares; then it gets one of its own."""

_BLOCK = 256

_numbers = count()


class _Step(NamedTuple):
    """What was changed in one version to make the next one."""

    version: int
    keys: frozenset[Any]


class _Version(Mapping[K, V]):
    """One state of a mapping: a dictionary that is shared with others, and what is different here.

    Args:
        base: the dictionary; never changed.
        above: what is different, or new.
        absent: keys of the dictionary that are not here.
        steps: the last ones that led here.
    """

    __slots__ = ("_above", "_absent", "_base", "_size", "number", "steps")

    def __init__(
        self,
        base: dict[K, V],
        above: dict[K, V] | None = None,
        absent: frozenset[K] = frozenset(),
        steps: tuple[_Step, ...] = (),
    ) -> None:
        self._base = base
        self._above = above or {}
        self._absent = absent
        self._size = len(base) - len(absent) + sum(key not in base for key in self._above)
        self.number = next(_numbers)
        self.steps = steps

    def __getitem__(self, key: K) -> V:
        if key in self._above:
            return self._above[key]
        if key in self._absent:
            raise KeyError(key)
        return self._base[key]

    def __iter__(self) -> Iterator[K]:
        yield from (key for key in self._base if key not in self._absent)
        yield from (key for key in self._above if key not in self._base)

    def __len__(self) -> int:
        return self._size

    def items(self) -> ItemsView[K, V]:
        """Those of a copy, which is faster than to look each of them up."""
        return self._flat().items()

    def values(self) -> ValuesView[V]:
        """Likewise."""
        return self._flat().values()

    def next(self, changed: Mapping[K, V], gone: Iterable[K]) -> _Version[K, V]:
        """The version after this one.

        Args:
            changed: what is different then, or new.
            gone: keys that are here, and then no more.
        """
        steps: tuple[_Step, ...] = ()
        keys = frozenset((*changed, *gone))
        if len(keys) <= _MOST_OF_A_STEP:
            steps = (*self.steps[1 - _REMEMBERED :], _Step(self.number, keys))
        above = {key: value for key, value in self._above.items() if key not in keys} | dict(changed)
        absent = self._absent.difference(changed).union(key for key in gone if key in self._base)
        version = _Version(self._base, above, absent, steps)
        if len(above) + len(absent) > _MOST_ABOVE:
            return _Version(version._flat(), steps=steps)
        return version

    def _flat(self) -> dict[K, V]:
        flat = dict(self._base)
        for key in self._absent:
            del flat[key]
        flat.update(self._above)
        return flat


def patched(before: Mapping[K, V], put: Mapping[K, V], drop: Iterable[K] = ()) -> Mapping[K, V]:
    """The same with other values under some keys; `before` itself if that makes no difference.

    Args:
        before: which must not be changed in place from now on.
        put: what is to be under these keys. A value that is equal to the former one leaves that in place.
        drop: keys to leave out; unless they are in `put`.
    """
    changed = {key: value for key, value in put.items() if key not in before or before[key] != value}
    gone = [key for key in drop if key in before and key not in put]
    if not changed and not gone:
        return before
    version = before if isinstance(before, _Version) else _Version(dict(before))
    return version.next(changed, gone)


def touched(new: Mapping[K, V], old: Mapping[K, V]) -> list[K]:
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


def dropped(new: Mapping[K, V], old: Mapping[K, W]) -> list[K]:
    """The keys of `old` that `new` lacks."""
    if new is old:
        return []
    suspects = _suspects(new, old)
    if suspects is not None:
        return [key for key in suspects if key in old and key not in new]
    keys = list(old)
    head, tail = _common_ends(list(new), keys)
    return [key for key in keys[head : len(keys) - tail] if key not in new]


def _suspects(new: Mapping[K, V], old: Mapping[K, W]) -> Iterable[K] | None:
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
