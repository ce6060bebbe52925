"""Whether the kernel sends new connections to the workers, or past them, and what to do about it.

The kernel decides by heartbeats alone, and needs nobody for it. Here it is told, and mended: conntrack sends
the clients of UDP where it sent them before, and a worker that hangs for long does not come back by itself.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

from userproxy.control.stopping import forget_relayed
from userproxy.model.service import Protocol
from userproxy.model.snapshot import Problem
from userproxy.model.state import ToListener

if TYPE_CHECKING:
    from userproxy.control.sides import Sides
    from userproxy.model.state import NodeState

log = structlog.get_logger("userproxy.control")

LOOK_SECONDS = 1.0
"""Between two looks."""

# Looks in a row, not seconds: a control side that was stopped itself knows nothing of the time in between.
TOLD_AFTER = 2
ENDED_AFTER = 30

# What a worker has to answer: it is of no use to wait, unless it is ended otherwise.
ANSWER_SECONDS, LAST_SECONDS = 0.5, 5.0

_REASON = "FallenOpen"


class RelayWatch:
    """Looks for silent workers. Lives as long as the daemon.

    Args:
        sides: that carry connections.

    Attributes:
        problems: the workers that are bypassed, and why.
    """

    def __init__(self, sides: Sides) -> None:
        self.problems: frozenset[Problem] = frozenset()
        self._hearts = sides.workers.hearts
        self._kernel = sides.kernel
        self._silent: Counter[int] = Counter()

    async def look(self, state: NodeState) -> bool:
        """Look once; returns whether `problems` have changed.

        Args:
            state: what was applied last.

        Raises:
            NetfilterError: the kernel cannot be asked.
        """
        beating = self._hearts.beating
        alive = await self._kernel.alive()
        self._silent = Counter({index: self._silent[index] + 1 for index in beating - alive})
        told = [index for index, looks in sorted(self._silent.items()) if looks >= TOLD_AFTER]
        problems = frozenset(
            [await self._problem(index, all_are=len(told) == len(beating)) for index in told]
        )
        before, self.problems = self.problems, problems
        if bool(before) is not bool(problems):
            await self._redirect(state, to_pods=bool(problems))
        return before != problems

    async def _problem(self, index: int, *, all_are: bool) -> Problem:
        looks = self._silent[index]
        is_late = looks >= ENDED_AFTER
        reason = await self._hearts.fullness_of(index, LAST_SECONDS if is_late else ANSWER_SECONDS)
        if reason is None and is_late:
            log.error("a worker that hangs is ended", worker=index, seconds=round(looks * LOOK_SECONDS))
            self._hearts.end(index)
        why = "it does not answer" if reason is None else reason or "its heartbeat does not reach the kernel"
        who = "new connections go" if all_are else "new clients of UDP go"
        return Problem(f"worker {index}", _REASON, f"{who} straight to the pods: {why}")

    async def _redirect(self, state: NodeState, *, to_pods: bool) -> None:
        """Have clients of UDP follow: conntrack would lead them on to where they went before."""
        if to_pods:
            await forget_relayed(self._kernel, state)
            return
        relayed = {
            key: (target.listener,)
            for key, target in state.captures.items()
            if key.protocol is Protocol.UDP and isinstance(target, ToListener) and target.behind is not None
        }
        if relayed:
            await self._kernel.forget(relayed)
