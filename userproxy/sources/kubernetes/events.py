"""Events on the Services whose author must know something: `kubectl describe service` shows them.

Every node of a cluster finds the same problem. So the name of an Event is made of what it says, and all nodes
but the first find it there already.

What happens instead of lasting, a `Notice`, is each node's own to tell. It may happen again: then the same
Event counts it, as a series.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from userproxy.model.service import ServicePortName
from userproxy.sources.kubernetes.failures import AccessError, ForbiddenError
from userproxy.sources.kubernetes.wire import Name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from userproxy.model.snapshot import Notice, Problem
    from userproxy.sources.kubernetes.backoff import Backoff
    from userproxy.sources.kubernetes.reflector import Times

log = structlog.get_logger("userproxy.kubernetes")

REASONS = frozenset(
    {
        "AddressFamilyNotSupported",
        "BadAnnotation",
        "BadObject",
        "ExternalIPsOff",
        "LimitsNotKept",
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

APART_SECONDS = 5.0
"""The least between two times that a notice is written."""

SERIES_SECONDS = 360.0
"""What happens again within this time is counted in the Event that is there, as client-go has it."""

_STALE_SECONDS = 60.0
"""A notice that could not be written for so long is not news any more."""

_MAX_NOTE = 1024
_CONTROLLER = "userproxy.dev/userproxy"


class Writer(Protocol):
    """What a recorder needs of `Access`."""

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an object; one of that name may exist already."""

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Change fields of an object."""


class Series(NamedTuple):
    """The Event of a notice.

    Attributes:
        path: where it is.
        times: how often it was told.
        told: when that was last, in the recorder's time.
    """

    path: str
    times: int
    told: float


class Recorder:
    """Writes Events, each problem's once an hour at most, and not too many."""

    def __init__(
        self,
        writer: Writer,
        node_name: str,
        uid: Callable[[Name], str | None],
        backoff: Backoff,
        times: Times,
    ) -> None:
        """Make a recorder; `run` does the writing.

        Args:
            writer: the API server.
            node_name: that reports.
            uid: of a Service; None if there is none of that name.
            backoff: how long to wait while the server is away.
            times: clock and waiting.
        """
        self._writer = writer
        self._node_name = node_name
        self._uid = uid
        self._backoff = backoff
        self._times = times
        self._waiting: dict[Problem, None] = {}
        self._told: dict[Problem, float] = {}
        self._notices: dict[Notice, float] = {}  # and when they came
        self._series: dict[Notice, Series] = {}
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

    def announce(self, notice: Notice) -> None:
        """Take something that happens now; it is written unless it was a moment ago."""
        now = self._times.clock()
        self._series = {one: at for one, at in self._series.items() if now - at.told < SERIES_SECONDS}
        last = self._series.get(notice)
        if last is None or now - last.told >= APART_SECONDS:
            self._notices[notice] = now
            self._some.set()

    async def run(self) -> None:
        """Write what there is to tell, until cancelled."""
        while True:
            await self._some.wait()
            if not (self._notices or self._waiting):
                self._some.clear()
                continue
            await self._ration()
            try:
                await self._write_next()
            except AccessError as error:
                await self._times.sleep(
                    self._backoff.failed(unreachable=error.unreachable, retry_after=error.retry_after)
                )
                continue
            self._backoff.succeeded()

    async def _write_next(self) -> None:
        """Write an Event. Notices go first: somebody waits.

        Raises:
            AccessError: the server is away, or has too much to do.
        """
        now = self._times.clock()
        self._notices = {one: at for one, at in self._notices.items() if now - at < _STALE_SECONDS}
        if self._notices:
            notice = next(iter(self._notices))
            await self._write_notice(notice)
            self._notices.pop(notice, None)
        elif self._waiting:
            problem = next(iter(self._waiting))
            name = ServicePortName.parse(problem.about)
            uid = self._uid(Name(name.namespace, name.service))
            if uid is not None:
                await self._try(problem, self._create(event(problem, name, uid, self._node_name)))
            self._waiting.pop(problem, None)
            self._told[problem] = self._times.clock()
        else:
            return
        self._tokens -= 1

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

    async def _write_notice(self, notice: Notice) -> None:
        series = self._series.pop(notice, None)
        if series is not None:
            times = series.times + 1
            heartbeat = {"series": {"count": times, "lastObservedTime": _now()}}
            if await self._try(notice, self._writer.patch(series.path, heartbeat)):
                self._series[notice] = Series(series.path, times, self._times.clock())
                return
        name = ServicePortName.parse(notice.about)
        uid = self._uid(Name(name.namespace, name.service))
        if uid is None:
            return
        body = notice_event(notice, name, uid, self._node_name)
        if await self._try(notice, self._create(body)):
            path = f"{_events_of(name.namespace)}/{body['metadata']['name']}"
            self._series[notice] = Series(path, 1, self._times.clock())

    async def _create(self, body: Mapping[str, Any]) -> None:
        await self._writer.post(_events_of(body["metadata"]["namespace"]), body)

    async def _try(self, told: Problem | Notice, request: Coroutine[object, object, None]) -> bool:
        """Whether something was written.

        Raises:
            AccessError: the server is away, or has too much to do.
        """
        try:
            await request
        except ForbiddenError as error:
            if not self._forbidden:
                log.warning("no Events are written on Services", error=str(error))
            self._forbidden = True
        except AccessError as error:
            if error.unreachable or error.retry_after:
                raise
            log.warning("an Event is not written", service=told.about, error=str(error))
        else:
            return True
        return False


def event(problem: Problem, name: ServicePortName, uid: str, node_name: str) -> dict[str, Any]:
    """The Event, as of events.k8s.io/v1, for a problem of a Service."""
    said = f"{uid}\n{problem.about}\n{problem.reason}\n{problem.message}"
    return _event(problem, said, name, uid, node_name) | {"type": "Warning", "action": "Serve"}


def notice_event(notice: Notice, name: ServicePortName, uid: str, node_name: str) -> dict[str, Any]:
    """The Event, likewise, for something that happens to a Service on this node now."""
    said = f"{uid}\n{notice.about}\n{notice.reason}\n{node_name}\n{_now()}"
    return _event(notice, said, name, uid, node_name) | {"type": "Normal", "action": "Hold"}


def _event(
    told: Problem | Notice, said: str, name: ServicePortName, uid: str, node_name: str
) -> dict[str, Any]:
    digest = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name.service}.{digest}", "namespace": name.namespace},
        "eventTime": _now(),
        "reason": told.reason,
        "note": told.message.encode()[:_MAX_NOTE].decode(errors="ignore"),
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


def _events_of(namespace: str) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def _now() -> str:
    """A MicroTime of the API."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
