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
from userproxy.model.filter import ConnectionFilter, parse_backend, parse_client, parse_service
from userproxy.ops.admin.interface import Asker, Operator, View
from userproxy.ops.admin.messages import API, Drained, DrainRequest, Killed, KillRequest

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
        killed, beyond = await operator.kill(ids, wanted, asker=call.asker)
        return Killed(killed=killed, out_of_reach=beyond)

    async def drain(call: Call, *, undo: bool) -> Drained:
        backends, connections = await operator.drain(call.body.address, asker=call.asker, undo=undo)
        return Drained(backends=backends, connections=connections)

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
        Resource("POST", "/connections/kill", "reset connections", kill, body=KillRequest),
        Resource(
            "POST",
            "/backends/drain",
            "give a pod no new connections",
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
        service=call.one("service"), client=call.one("client"), backend=call.one("backend")
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
