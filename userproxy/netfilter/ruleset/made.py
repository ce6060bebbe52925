"""The chains that are made when they are first needed: to pick a pod, and to pin a client to it.

There is one for each number of pods, and for each time that clients keep theirs, whatever the number of
Services.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from userproxy.netfilter.ruleset.language import Chain, DnatBy, Note, Random, Rule, Simple
from userproxy.netfilter.ruleset.sets import OUTSIDE_PREFIX, each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.netfilter.ruleset.sets import Family

_NAME = re.compile(r"(outside-)?(?:(sticky-)?pick-([1-9][0-9]*)|pin-for-([1-9][0-9]*))")


class Pick(NamedTuple):
    """A chain that picks one of `size` pods evenly: one for all frontends that have so many.

    Attributes:
        size: above 0.
        sticky: a client that is pinned to a pod goes there.
        outside: for frontends that only packets from outside are meant for.
    """

    size: int
    sticky: bool = False
    outside: bool = False

    @property
    def name(self) -> str:
        """The chain's name: `pick-3`, `outside-sticky-pick-3`."""
        outside, sticky = OUTSIDE_PREFIX * self.outside, "sticky-" * self.sticky
        return f"{outside}{sticky}pick-{self.size}"

    @property
    def chain(self) -> Chain:
        """The chain itself."""
        return Chain(self.name, each(self._rules))

    def _rules(self, family: Family) -> tuple[Rule, ...]:
        side, candidate, key = family.side(outside=self.outside), family.candidate, family.frontend
        used = Note(key, side.used.name)
        pick = DnatBy((*key, Random(self.size)), side.pods.name, family.address)
        if not self.sticky:
            return (Rule((*candidate, used), pick),)
        return (
            Rule((*candidate, used), Simple.CONTINUE),
            Rule(candidate, DnatBy((family.source, *key), side.pins.name, family.address)),
            Rule(candidate, pick),
        )


class Pin(NamedTuple):
    """A chain that pins a client to the pod where its connection goes: one for all frontends of one time.

    Attributes:
        seconds: for which the client keeps it after its last new connection; above 0.
        outside: for frontends that only packets from outside are meant for.
    """

    seconds: int
    outside: bool = False

    @property
    def name(self) -> str:
        """The chain's name: `pin-for-10800`, `outside-pin-for-10800`."""
        return f"{OUTSIDE_PREFIX * self.outside}pin-for-{self.seconds}"

    @property
    def chain(self) -> Chain:
        """The chain itself."""
        return Chain(self.name, each(self._rules))

    def _rules(self, family: Family) -> tuple[Rule, ...]:
        pins = family.side(outside=self.outside).pins.name
        client = (family.source, *family.original_frontend)
        note = Note(client, pins, data=family.pod, seconds=self.seconds)
        return (Rule((*family.candidate, note), Simple.CONTINUE),)


Made = Pick | Pin


def parse(name: str) -> Made | None:
    """What a chain of this name does; None if it is none of these."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    prefix, sticky, size, seconds = found.groups()
    outside = bool(prefix)
    return Pick(int(size), bool(sticky), outside) if size else Pin(int(seconds), outside)


def made_among(names: Iterable[str]) -> frozenset[Made]:
    """The chains of these names, as far as they are such."""
    return frozenset(made for made in map(parse, names) if made is not None)
