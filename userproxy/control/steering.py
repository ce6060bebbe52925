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
import structlog

from userproxy.model.heritage import Pin
from userproxy.model.messages import Pins
from userproxy.model.versioned import dropped, touched
from userproxy.netfilter import NetfilterError
from userproxy.planner.paths.steered import frontends_of, moving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.control.sides import Crew, Kernel
    from userproxy.model.service import PoolName
    from userproxy.model.state import Frontend, Steer, Target


log = structlog.get_logger("userproxy.control")


class Steering:
    """Lives as long as the daemon.

    Args:
        crew: what chooses.
        kernel: knows where it has sent clients while nobody chose.
    """

    def __init__(self, crew: Crew, kernel: Kernel) -> None:
        self._crew = crew
        self._kernel = kernel
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

    async def pins(self) -> list[Pins]:
        """Where clients are pinned to, as the kernel has noted it, for whoever begins to choose."""
        sticky = {name: steer.affinity for name, steer in self._told.items() if steer.affinity is not None}
        if not sticky:
            return []
        try:
            kept = await self._kernel.pins()
        except NetfilterError as error:
            log.warning("where clients are pinned to is not known", error=str(error))
            return []
        pools = {frontend: name for name in sticky for frontend in frontends_of(self._told[name])}
        found: dict[PoolName, list[Pin]] = {}
        for client, frontend, pod, left in kept:
            name = pools.get(frontend)
            if name is not None:
                idle = max(0.0, sticky[name] - left)
                found.setdefault(name, []).append(Pin(client, pod, idle))
        return [Pins(pool=name, pins=tuple(pins)) for name, pins in found.items()]

    def _note(self, steer: Steer, captures: Mapping[Frontend, Target]) -> None:
        found = moving(steer, captures)
        self._told[steer.name] = (
            msgspec.structs.replace(steer, moving=found) if found != steer.moving else steer
        )
        if found:
            self._unsettled.add(steer.name)
