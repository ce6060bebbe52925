"""The daemon's end of the admin socket: HTTP/1.1 with JSON; lists are JSON lines.

One instance lives as long as the daemon. Whoever may open the socket is root, and is still not trusted to be
quick, complete or sane: see `userproxy.ops.http.clients`. Long answers are made as the client takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import web

from userproxy import __version__
from userproxy.ops.admin.interface import Asker, OperatorError
from userproxy.ops.admin.messages import API, API_HEADER, ROWS, Failure
from userproxy.ops.admin.resources import Call, Resource, resources
from userproxy.ops.admin.socket_file import admin_socket
from userproxy.ops.http.browsers import foreign
from userproxy.ops.http.clients import Clients, Handler, Limits, quiet_runner

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.ops.admin.interface import Operator, View

_log = structlog.get_logger("userproxy.admin")
_encoder = msgspec.json.Encoder()

_HEADERS = {"Server": f"userproxy/{__version__}", API_HEADER: str(API)}
_JSON = "application/json"
_SEE = "GET / lists what there is, with its parameters"
_BACKLOG = 100
_ROWS = 256
"""That are written at once, at most."""
_QUOTED = 300
"""Characters of a message about someone else's bytes, which may quote them."""


@contextlib.asynccontextmanager
async def serve_admin(
    path: Path, view: View, operator: Operator, limits: Limits | None = None
) -> AsyncIterator[None]:
    """Answer on path while the context lasts; then hang up on all clients and remove the socket.

    Raises:
        AdminSocketError: the socket cannot be made, or another daemon answers on it.
    """
    limits = limits or Limits()
    clients = Clients(limits, _refusal(limits))
    application = web.Application(client_max_size=limits.body_bytes, middlewares=[_told, clients.attend])
    for resource in resources(view, operator):
        application.router.add_route(resource.method, resource.path, _handler(resource))
    with admin_socket(path) as listener:
        runner = quiet_runner(application)
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - set up above
        protocols = clients.protocols(runner.server)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(protocols, sock=listener, backlog=_BACKLOG)
        try:
            yield
        finally:
            server.close()
            clients.close()
            await runner.cleanup()


def _refusal(limits: Limits) -> bytes:
    """What one client too many gets, whatever it asks."""
    busy = f"the daemon already serves {limits.clients} admin clients"
    body = _encoder.encode(Failure(error=busy, remedy="try again in a moment")) + b"\n"
    headers = {**_HEADERS, "Content-Type": _JSON, "Content-Length": len(body), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + body


def _handler(resource: Resource) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer = resource.answer(await _call(resource, request))
        if isinstance(answer, AsyncIterator):
            return await _send_rows(request, answer)
        said = await answer
        return await _send_rows(request, _in_turn(said)) if isinstance(said, Sequence) else _object(said)

    return handle


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer, whatever goes wrong on the way to it."""
    if reason := foreign(request):
        return _failed(HTTPStatus.FORBIDDEN, reason, "ask from a program, with localhost as the host")
    try:
        return await handler(request)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - told and logged; it costs only this client its answer
        status, wrong, remedy = _explained(error, request)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.exception("an admin request failed", path=request.path)
        answer = _failed(status, " ".join(wrong.split())[:_QUOTED], remedy)
        if isinstance(error, web.HTTPMethodNotAllowed):
            answer.headers["Allow"] = error.headers["Allow"]
        return answer


def _explained(error: Exception, request: web.Request) -> tuple[int, str, str]:
    """Its status, what is wrong, and the remedy."""
    match error:
        case OperatorError():
            told = error.status, error.error, error.remedy
        case web.HTTPRequestEntityTooLarge():
            told = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error.text), "ask for less at once"
        case web.HTTPNotFound():
            told = HTTPStatus.NOT_FOUND, f"there is no {request.path}", _SEE
        case web.HTTPMethodNotAllowed():
            wrong = f"{request.path} takes {error.headers['Allow']}, not {request.method}"
            told = HTTPStatus.METHOD_NOT_ALLOWED, wrong, _SEE
        case web.HTTPException():
            told = HTTPStatus(error.status), error.reason, _SEE
        case _:
            told = HTTPStatus.INTERNAL_SERVER_ERROR, "the daemon failed to answer", "its log says why"
    return told


async def _call(resource: Resource, request: web.Request) -> Call:
    """What is asked of a resource.

    Raises:
        OperatorError: it does not take this.
    """
    peer = None if request.transport is None else request.transport.get_extra_info("socket")
    if peer is None:
        raise ConnectionResetError  # it has left
    parameters: dict[str, object] = dict(request.match_info)
    for name in dict.fromkeys(request.query):
        if name not in resource.parameters:
            known = ", ".join(resource.parameters) or "none"
            raise _mistake(f"{resource.path} has no parameter {name!r}; it has: {known}")
        try:
            parameters[name] = [resource.parameters[name](text) for text in request.query.getall(name)]
        except ValueError as error:
            raise _mistake(f"{name}: {error}") from None
    body = None
    if resource.body is not None:
        if request.content_type != _JSON:
            raise OperatorError(
                f"{resource.path} takes JSON",
                f"send the header `Content-Type: {_JSON}`",
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        body = _decoded(await request.read(), resource.body)
    return Call(Asker.behind(peer), parameters, body)


def _decoded(payload: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _mistake(f"the body is no {{{', '.join(kind.__struct_fields__)}}}: {error}") from None


def _mistake(wrong: str) -> OperatorError:
    return OperatorError(wrong, _SEE, HTTPStatus.BAD_REQUEST)


async def _send_rows(
    request: web.Request, chunks: AsyncIterator[Sequence[msgspec.Struct]]
) -> web.StreamResponse:
    """Send rows as they come, no faster than the client takes them, and let other work be done meanwhile."""
    response = web.StreamResponse(headers={**_HEADERS, "Content-Type": ROWS})
    try:
        async for rows in chunks:
            if not response.prepared:  # what fails before anything is sent can still be told
                await response.prepare(request)
            await _write_rows(response, rows)
    except Exception as error:
        if not response.prepared or isinstance(error, ConnectionError):
            raise
        _log.exception("an admin request failed", path=request.path)
        raise ConnectionResetError from None  # the answer has no end then, which its reader notices
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def _write_rows(response: web.StreamResponse, rows: Sequence[msgspec.Struct]) -> None:
    for start in range(0, len(rows), _ROWS):
        await response.write(_encoder.encode_lines(rows[start : start + _ROWS]))
        await asyncio.sleep(0)  # a write does not yield while there is room, and other work waits


async def _in_turn(rows: Sequence[msgspec.Struct]) -> AsyncIterator[Sequence[msgspec.Struct]]:
    yield rows


def _object(said: msgspec.Struct, status: int = HTTPStatus.OK) -> web.Response:
    body = _encoder.encode(said) + b"\n"
    return web.Response(body=body, status=status, content_type=_JSON, headers=_HEADERS)


def _failed(status: int, error: str, remedy: str) -> web.Response:
    return _object(Failure(error=error, remedy=remedy), status)
