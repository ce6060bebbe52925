"""What an operator has done through the command line: end connections, drain pods, bring them back."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from userproxy import logs
from userproxy.model.address import Address
from userproxy.model.condition import REMOVED
from userproxy.model.filter import is_backend
from userproxy.model.levels import LEVELS
from userproxy.ops.admin.interface import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.control.reconcile import Reconciler
    from userproxy.control.sides import Workers
    from userproxy.control.view import View
    from userproxy.model.filter import ConnectionFilter
    from userproxy.ops.admin.interface import Asker

log = structlog.get_logger("userproxy.control")

# How long somebody waits to hear that it is done.
_PATIENCE_SECONDS = 8.0

_NAME_THEM = "name connections, a Service, a client or a backend"


class Operator:
    """Applies what an operator asks for. Lives as long as the daemon.

    Args:
        reconciler: applies a drain.
        workers: the data side.
        view: knows the backends.
        notify: has `Reconciler.reconcile` called soon.
    """

    def __init__(
        self, reconciler: Reconciler, workers: Workers, view: View, notify: Callable[[], None]
    ) -> None:
        self._reconciler = reconciler
        self._workers = workers
        self._view = view
        self._notify = notify

    async def kill(
        self, ids: Sequence[str] | None, wanted: ConnectionFilter, asker: Asker
    ) -> tuple[int, int]:
        """Reset the connections with these ids (None: any) that match.

        Returns:
            How many were reset, and how many others netfilter carries, so that they cannot be.

        Raises:
            OperatorError: nothing in particular is asked for.
        """
        if ids is None and not wanted:
            raise OperatorError("kill what?", _NAME_THEM, HTTPStatus.BAD_REQUEST)
        count = await self._workers.kill(ids, wanted)
        beyond = await self._view.carried_by_netfilter(ids, wanted)
        log.info("an operator killed connections", connections=count, out_of_reach=beyond, **_who(asker))
        return count, beyond

    def log_level(self) -> str:
        """From which severity on there are log lines."""
        return logs.level()

    def set_log_level(self, level: str, asker: Asker) -> None:
        """Change that, in the daemon and its workers, until it starts anew.

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
        self._workers.set_log_level(level)

    async def drain(self, backend: Address, asker: Asker, *, undo: bool) -> tuple[int, int]:
        """Take a pod out, or bring it back; returns how many backends, and their connections.

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
        event = "an operator brought a backend back" if undo else "an operator drained a backend"
        log.info(event, backend=shown, **_who(asker))
        self._notify()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._reconciler.settled()
        except TimeoutError:
            late = HTTPStatus.SERVICE_UNAVAILABLE
            raise OperatorError("noted, but not applied yet", "see `userproxy status`", late) from None
        return len(rows), sum(row.connections for row in rows)


def _who(asker: Asker) -> dict[str, object]:
    """Who asked, as the log has it."""
    return {"uid": asker.uid, "pid": asker.pid, "command": asker.command}
