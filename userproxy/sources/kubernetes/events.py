"""Events on the Services whose author must know something: `kubectl describe service` shows them.

Every node of a cluster finds the same problem. So the name of an Event is made of what it says, and all nodes
but the first find it there already.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any

import structlog

from userproxy.model.service import ServicePortName
from userproxy.sources.kubernetes.failures import AccessError, ForbiddenError
from userproxy.sources.kubernetes.wire import Name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from userproxy.model.snapshot import Problem
    from userproxy.sources.kubernetes.backoff import Backoff
    from userproxy.sources.kubernetes.reflector import Times

log = structlog.get_logger("userproxy.kubernetes")

REASONS = frozenset(
    {
        "AddressFamilyNotSupported",
        "BadAnnotation",
        "BadObject",
        "PortConflict",
        "PortRangeExhausted",
        "ProtocolNotSupported",
    }
)
"""The problems of a Service that its author can do something about."""

BURST = 20
"""Events that may be written at once; beyond them one every `INTERVAL` seconds."""

INTERVAL = 3.0

AGAIN_SECONDS = 3600.0
"""When a problem that lasts is told again: the API server forgets Events after an hour."""

_MAX_NOTE = 1024
_CONTROLLER = "userproxy.dev/userproxy"


class Recorder:
    """Writes Events, each once an hour at most, and not too many."""

    def __init__(
        self,
        post: Callable[[str, Mapping[str, Any]], Awaitable[None]],
        node_name: str,
        uid: Callable[[Name], str | None],
        backoff: Backoff,
        times: Times,
    ) -> None:
        """Make a recorder; `run` does the writing.

        Args:
            post: creates an object at a path; one of that name may exist already.
            node_name: that reports.
            uid: of a Service; None if there is none of that name.
            backoff: how long to wait while the server is away.
            times: clock and waiting.
        """
        self._post = post
        self._node_name = node_name
        self._uid = uid
        self._backoff = backoff
        self._times = times
        self._waiting: dict[Problem, None] = {}
        self._told: dict[Problem, float] = {}
        self._some = asyncio.Event()
        self._forbidden = False
        self._tokens, self._refilled = float(BURST), times.clock()

    def tell(self, problems: Sequence[Problem]) -> None:
        """Take the problems that there are now. Those that are new, or last for an hour, get an Event."""
        now = self._times.clock()
        self._told = {one: at for one, at in self._told.items() if now - at < AGAIN_SECONDS}
        current = [one for one in problems if one.reason in REASONS]
        # What is over before it was written need not be written.
        self._waiting = dict.fromkeys(one for one in current if one not in self._told)
        if self._waiting:
            self._some.set()

    async def run(self) -> None:
        """Write what there is to tell, until cancelled."""
        while True:
            await self._some.wait()
            if not self._waiting:
                self._some.clear()
                continue
            await self._ration()
            if not self._waiting:
                continue
            problem = next(iter(self._waiting))
            try:
                await self._write(problem)
            except AccessError as error:
                await self._times.sleep(
                    self._backoff.failed(unreachable=error.unreachable, retry_after=error.retry_after)
                )
                continue
            self._backoff.succeeded()
            self._tokens -= 1
            self._waiting.pop(problem, None)
            self._told[problem] = self._times.clock()

    async def _ration(self) -> None:
        """Wait until one more Event is within the rate."""
        while True:
            now = self._times.clock()
            self._tokens = min(float(BURST), self._tokens + (now - self._refilled) / INTERVAL)
            self._refilled = now
            if self._tokens >= 1:
                return
            # A moment more, or rounding would leave a bit to wait for again.
            await self._times.sleep((1 - self._tokens) * INTERVAL + 0.001)

    async def _write(self, problem: Problem) -> None:
        """Write one Event.

        Raises:
            AccessError: the server is away, or has too much to do.
        """
        name = ServicePortName.parse(problem.about)
        uid = self._uid(Name(name.namespace, name.service))
        if uid is None:
            return
        try:
            await self._post(
                f"/apis/events.k8s.io/v1/namespaces/{name.namespace}/events",
                event(problem, name, uid, self._node_name),
            )
        except ForbiddenError as error:
            if not self._forbidden:
                log.warning("no Events are written on Services", error=str(error))
            self._forbidden = True
        except AccessError as error:
            if error.unreachable or error.retry_after:
                raise
            log.warning("an Event is not written", service=problem.about, error=str(error))


def event(problem: Problem, name: ServicePortName, uid: str, node_name: str) -> dict[str, Any]:
    """The Event, as of events.k8s.io/v1, for a problem of a Service."""
    said = f"{uid}\n{problem.about}\n{problem.reason}\n{problem.message}"
    digest = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    note = problem.message.encode()[:_MAX_NOTE].decode(errors="ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name.service}.{digest}", "namespace": name.namespace},
        "eventTime": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": "Warning",
        "reason": problem.reason,
        "note": note,
        "action": "Serve",
        "reportingController": _CONTROLLER,
        "reportingInstance": node_name[:128],
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": name.namespace,
            "name": name.service,
            "uid": uid,
        },
    }
