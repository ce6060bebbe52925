"""What an operator has done through the command line: end connections, drain pods, bring them back."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from userproxy import logs
from userproxy.control.sides import end_carried
from userproxy.model.address import Address
from userproxy.model.condition import REMOVED
from userproxy.model.endings import Reason
from userproxy.model.filter import ConnectionFilter, is_backend
from userproxy.model.levels import LEVELS
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack.table import id_of
from userproxy.netfilter.ending.ending import Ended
from userproxy.ops.admin.interface import OperatorError
from userproxy.ops.admin.messages import Killed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.control.reconcile import Reconciler
    from userproxy.control.sides import Sides
    from userproxy.control.view import View
    from userproxy.netfilter.conntrack.flows import Flow
    from userproxy.ops.admin.interface import Asker

log = structlog.get_logger("userproxy.control")

# How long somebody waits to hear that it is done.
_PATIENCE_SECONDS = 8.0

_NAME_THEM = "name connections, a Service, a client or a backend"


class Operator:
    """Applies what an operator asks for. Lives as long as the daemon.

    Args:
        reconciler: applies a drain.
        sides: that carry connections.
        view: knows the backends.
        notify: has `Reconciler.reconcile` called soon.
    """

    def __init__(self, reconciler: Reconciler, sides: Sides, view: View, notify: Callable[[], None]) -> None:
        self._reconciler = reconciler
        self._sides = sides
        self._view = view
        self._notify = notify
        self._deadlines: dict[Address, asyncio.Task[None]] = {}

    async def kill(self, ids: Sequence[str] | None, wanted: ConnectionFilter, asker: Asker) -> Killed:
        """End the connections with these ids (None: any) that match, whoever carries them.

        Raises:
            OperatorError: nothing in particular is asked for.
        """
        if ids is None and not wanted:
            raise OperatorError("kill what?", _NAME_THEM, HTTPStatus.BAD_REQUEST)
        relayed, (flows, ended) = await asyncio.gather(
            self._sides.workers.kill(ids, wanted), self._end_carried(ids, wanted)
        )
        left = tuple(id_of(flow) for flow in flows if flow.id not in ended.ended)
        carried = len(flows) - len(left)
        log.info(
            "an operator killed connections",
            connections=relayed + carried,
            carried=carried,
            out_of_reach=len(left),
            **_who(asker),
        )
        return Killed(
            killed=relayed + carried,
            carried=carried,
            out_of_reach=len(left),
            left=left,
            problem=ended.problem,
        )

    async def _end_carried(
        self, ids: Sequence[str] | None, wanted: ConnectionFilter
    ) -> tuple[list[Flow], Ended]:
        """Which connections of the kernel were meant, and what became of them."""
        flows = await self._sides.flows.chosen(ids, wanted)
        if not flows:
            return [], Ended()
        try:
            return flows, await end_carried(self._sides, flows, Reason.KILLED)
        except NetfilterError as error:
            return flows, Ended(problem=str(error))

    def log_level(self) -> str:
        """From which severity on there are log lines."""
        return logs.level()

    def set_log_level(self, level: str, asker: Asker) -> None:
        """Change that, in the daemon and all of its processes, until it starts anew.

        Raises:
            OperatorError: there is no such level.
        """
        if level not in LEVELS:
            known = ", ".join(LEVELS)
            raise OperatorError(f"there is no log level {level!r}", f"one of {known}", HTTPStatus.BAD_REQUEST)
        log.warning(
            "an operator changed the log level", level_now=level, level_before=logs.level(), **_who(asker)
        )
        logs.set_level(level)
        self._sides.workers.set_log_level(level)
        self._sides.crew.set_log_level(level)

    async def drain(
        self, backend: Address, asker: Asker, *, undo: bool, end_after: float | None = None
    ) -> tuple[int, int]:
        """Take a pod out, or bring it back; returns how many backends, and their connections.

        These are ended after `end_after` seconds, unless it is brought back before; None: never. What is said
        last holds.

        Raises:
            OperatorError: there is no such backend, or it was not taken out.
        """
        backends = await self._view.backends()
        rows = [
            row
            for row in backends
            if row.state != REMOVED and is_backend(backend, Address.parse(row.backend))
        ]
        shown = str(backend) if backend.port else backend.ip
        drained = self._reconciler.drained
        if undo and not drained.remove(backend):
            known = ", ".join(str(one) if one.port else one.ip for one in drained.addresses)
            raise OperatorError(f"{shown} is not drained", f"drained is {known or 'nothing'}")
        if not undo:
            if not rows:
                raise OperatorError(
                    f"no backend is at {shown}", "see `userproxy backends`", HTTPStatus.NOT_FOUND
                )
            drained.add(backend)
        self._set_deadline(backend, asker, None if undo else end_after)
        event = "an operator brought a backend back" if undo else "an operator drained a backend"
        log.info(event, backend=shown, end_after=end_after, **_who(asker))
        self._notify()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._reconciler.settled()
        except TimeoutError:
            late = HTTPStatus.SERVICE_UNAVAILABLE
            raise OperatorError("noted, but not applied yet", "see `userproxy status`", late) from None
        return len(rows), sum(row.connections for row in rows)

    def _set_deadline(self, backend: Address, asker: Asker, seconds: float | None) -> None:
        earlier = self._deadlines.pop(backend, None)
        if earlier is not None:
            earlier.cancel()
        if seconds is not None:
            self._deadlines[backend] = asyncio.create_task(self._end_after(seconds, backend, asker))

    async def _end_after(self, seconds: float, backend: Address, asker: Asker) -> None:
        await asyncio.sleep(seconds)
        del self._deadlines[backend]
        try:
            await self.kill(None, ConnectionFilter(backend=backend), asker)
        except NetfilterError as error:
            log.error("connections of a drained backend go on", backend=str(backend), error=str(error))  # noqa: TRY400


def _who(asker: Asker) -> dict[str, object]:
    """Who asked, as the log has it."""
    return {"uid": asker.uid, "pid": asker.pid, "command": asker.command}
