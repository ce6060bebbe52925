"""What whoever chooses is told of pods' indices, around a change of the kernel's.

The kernel finds a pod by the frontend and the index that it is told. The invariant: an index is said only
where it means the same pod before a change of the kernel's and after it.

1. Before the change, the crew is told who may be picked, and which indices are about to change their meaning
   (`Steer.moving`). A pod that goes is picked no more. One that comes, or whose index moves, is not named
   yet: where it is picked, the rules choose, by whatever the kernel has then.
2. The kernel changes, at once.
3. The crew is told that the indices mean what it knows.

If the kernel refuses the change, the crew goes on with what both have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.versioned import dropped, touched
from userproxy.planner.paths.steered import moving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.control.sides import Crew
    from userproxy.model.service import PoolName
    from userproxy.model.state import Frontend, Steer, Target


class Steering:
    """Lives as long as the daemon.

    Args:
        crew: what chooses.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._wanted: Mapping[PoolName, Steer] | None = None
        self._told: dict[PoolName, Steer] = {}
        self._unsettled: set[PoolName] = set()

    async def prepare(self, wanted: Mapping[PoolName, Steer], captures: Mapping[Frontend, Target]) -> None:
        """Have these chosen for, before the kernel is told.

        Args:
            wanted: who is steered.
            captures: that the kernel has so far.
        """
        if wanted is self._wanted:
            return
        before = {} if self._wanted is None else self._wanted
        for name in dropped(wanted, before):
            self._told.pop(name, None)
            self._unsettled.discard(name)
        for name in touched(wanted, before):
            self._note(wanted[name], captures)
        self._wanted = wanted
        await self._crew.steer(self._told)

    async def settle(self, captures: Mapping[Frontend, Target]) -> None:
        """The kernel has these captures now: have all indices said that mean what they are to."""
        names, self._unsettled = self._unsettled, set()
        for name in names:
            self._note(self._told[name], captures)
        if self._unsettled != names:
            await self._crew.steer(self._told)

    def _note(self, steer: Steer, captures: Mapping[Frontend, Target]) -> None:
        found = moving(steer, captures)
        self._told[steer.name] = (
            msgspec.structs.replace(steer, moving=found) if found != steer.moving else steer
        )
        if found:
            self._unsettled.add(steer.name)
