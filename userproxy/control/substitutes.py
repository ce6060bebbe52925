"""Other targets in the place of some that are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.versioned import dropped, patched, touched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.state import Frontend, Target


class Substitutes:
    """Puts targets in the place of others, again and again. Lives as long as the daemon.

    What it gives is made of what it gave the last time, so that few captures differ from those.
    """

    def __init__(self) -> None:
        self._wanted: Mapping[Frontend, Target] = {}
        self._put: Mapping[Frontend, Target] = {}
        self._given: Mapping[Frontend, Target] = {}

    def put(
        self, wanted: Mapping[Frontend, Target], substitutes: Mapping[Frontend, Target]
    ) -> Mapping[Frontend, Target]:
        """The wanted captures with these in the place of theirs; the same object if there are none."""
        if not substitutes:
            self._wanted, self._put, self._given = wanted, {}, wanted
            return wanted
        looked_at = (*touched(wanted, self._wanted), *self._put, *substitutes)
        changed = {key: substitutes.get(key, wanted[key]) for key in looked_at if key in wanted}
        self._given = patched(self._given, changed, drop=dropped(wanted, self._wanted))
        self._wanted, self._put = wanted, substitutes
        return self._given
