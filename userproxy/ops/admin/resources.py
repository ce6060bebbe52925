"""What can be asked on the admin socket: one `Resource` each, in the table that `resources` returns.

To add one: say in `userproxy.ops.admin.interface` what stands behind it, and put a line into the table. Its
query parameters are parsed, its body is decoded, and its answer is sent as JSON, in
`userproxy.ops.admin.server`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from userproxy import __version__
from userproxy.model.filter import (
    ConnectionFilter,
    RecordFilter,
    parse_backend,
    parse_client,
    parse_reason,
    parse_service,
)
from userproxy.ops.admin.interface import Asker, Operator, View
from userproxy.ops.admin.messages import API, Drained, DrainRequest, Killed, KillRequest, LogLevel

if TYPE_CHECKING:
    from userproxy.model.rows import ConnectionRow

Answer = Awaitable[msgspec.Struct | Sequence[msgspec.Struct]] | AsyncIterator[Sequence[msgspec.Struct]]
"""One object, or the rows of a list: all of them, or some at a time."""


class Call(msgspec.Struct, frozen=True):
    """A request to a resource.

    Attributes:
        asker: whose it is.
        parameters: those of the query and of the path that were given, by name, parsed; each of the query is
            a list, since it may be given more than once.
        body: what the resource takes; None if it takes none.
    """

    asker: Asker
    parameters: Mapping[str, Any]
    body: Any = None

    def one(self, name: str) -> Any:  # noqa: ANN401 - whatever the parameter's parser returns
        """The last value of a query parameter, or None."""
        given = self.parameters.get(name)
        return given[-1] if given else None


class Resource(msgspec.Struct, frozen=True):
    """One thing to ask for.

    Attributes:
        method: `GET`, or `POST` for what changes something.
        path: may have parts like `{id}`, which become parameters.
        about: one line for who lists the resources.
        answer: answers a call; raises `OperatorError` if it cannot be answered.
        parameters: of the query: how each is parsed; a parser raises ValueError, with a message for a person.
        body: the JSON object that is taken, or None.
    """

    method: str
    path: str
    about: str
    answer: Callable[[Call], Answer]
    parameters: Mapping[str, Callable[[str], Any]] = {}
    body: type[msgspec.Struct] | None = None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A resource, as `GET /` tells it."""

    method: str
    path: str
    about: str
    parameters: tuple[str, ...]
    body: tuple[str, ...]


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /` answers."""

    version: str
    api: int
    resources: tuple[Listed, ...]


CONNECTIONS: Mapping[str, Callable[[str], Any]] = {
    "service": parse_service,
    "client": parse_client,
    "backend": parse_backend,
    "state": str,
}
"""The parameters that choose connections."""


RECORDS: Mapping[str, Callable[[str], Any]] = {
    **{name: parse for name, parse in CONNECTIONS.items() if name != "state"},
    "source": parse_backend,
    "id": str,
    "since": float,
    "reason": parse_reason,
    "which": str,
}
"""The parameters that choose records: `since` in seconds since the epoch, `which` is `live` or `ended`."""


def resources(view: View, operator: Operator) -> tuple[Resource, ...]:
    """All of them."""

    async def index(_call: Call) -> Index:
        return Index(version=__version__, api=API, resources=tuple(map(_listed, table)))

    async def kill(call: Call) -> Killed:
        body: KillRequest = call.body
        wanted, ids = body.filter, body.ids
        if body.state:
            found = [row.id async for rows in _in_state(view.connections(wanted), body.state) for row in rows]
            ids = tuple(found if ids is None else set(ids).intersection(found))
        return await operator.kill(ids, wanted, asker=call.asker)

    async def drain(call: Call, *, undo: bool) -> Drained:
        body: DrainRequest = call.body
        backends, connections = await operator.drain(
            body.address, asker=call.asker, undo=undo, end_after=body.end_after
        )
        return Drained(backends=backends, connections=connections)

    async def log_level(_call: Call) -> LogLevel:
        return LogLevel(level=operator.log_level())

    async def set_log_level(call: Call) -> LogLevel:
        operator.set_log_level(call.body.level, asker=call.asker)
        return LogLevel(level=operator.log_level())

    table = (
        Resource("GET", "/", "this list", index),
        Resource("GET", "/status", "the daemon, and what is wrong with it", lambda _: view.status()),
        Resource("GET", "/services", "the Service ports, one a line", lambda _: view.services()),
        Resource("GET", "/backends", "the backends, with their state and why", lambda _: view.backends()),
        Resource(
            "GET",
            "/connections",
            "the live connections that match",
            lambda call: _in_state(view.connections(_filter(call)), call.parameters.get("state", ())),
            parameters=CONNECTIONS,
        ),
        Resource(
            "GET",
            "/records",
            "connections, live or over, with what happened to them",
            lambda call: view.records(_record_filter(call)),
            parameters=RECORDS,
        ),
        Resource("GET", "/log-level", "from which severity on there are log lines", log_level),
        Resource(
            "POST", "/log-level", "change that, until the daemon starts anew", set_log_level, body=LogLevel
        ),
        Resource("POST", "/connections/kill", "reset connections", kill, body=KillRequest),
        Resource(
            "POST",
            "/backends/drain",
            "give a pod no new connections, and end those that it has, if wanted, after some time",
            lambda call: drain(call, undo=False),
            body=DrainRequest,
        ),
        Resource(
            "POST",
            "/backends/undrain",
            "let a drained pod be picked again",
            lambda call: drain(call, undo=True),
            body=DrainRequest,
        ),
    )
    return table


def _listed(resource: Resource) -> Listed:
    return Listed(
        method=resource.method,
        path=resource.path,
        about=resource.about,
        parameters=tuple(resource.parameters),
        body=resource.body.__struct_fields__ if resource.body else (),
    )


def _filter(call: Call) -> ConnectionFilter:
    return ConnectionFilter(
        service=call.one("service"),
        client=call.one("client"),
        backend=call.one("backend"),
        source=call.one("source"),
    )


def _record_filter(call: Call) -> RecordFilter:
    which = call.parameters.get("which", ())
    return RecordFilter(
        connections=_filter(call),
        id=call.one("id") or "",
        since=call.one("since") or 0.0,
        reasons=tuple(call.parameters.get("reason", ())),
        live=not which or "live" in which,
        ended=not which or "ended" in which,
    )


async def _in_state(
    chunks: AsyncIterator[list[ConnectionRow]], states: Sequence[str]
) -> AsyncIterator[list[ConnectionRow]]:
    """Those in one of the states; all of them if none is named."""
    try:
        async for rows in chunks:
            yield [row for row in rows if row.state in states] if states else rows
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
