"""What can go wrong with a request to the API server: one line that names the server and the remedy.

Anything may answer in its place, a proxy's login page or a stray balancer: whatever the transport makes of
that is an `AccessError`, and nothing else, because the daemon goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from kubernetes_asyncio.config import ConfigException

from userproxy.sources.kubernetes import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class AccessError(Exception):
    """A request that failed. One line.

    Attributes:
        unreachable: nobody answered.
        retry_after: seconds that the server wants to be left alone.
    """

    def __init__(self, message: str, *, unreachable: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.unreachable = unreachable
        self.retry_after = retry_after


class GoneError(AccessError):
    """The server no longer knows that resourceVersion or continue token: list anew."""


class ForbiddenError(AccessError):
    """RBAC forbids it."""


class Asked(Protocol):
    """Who is asked: its address may become known only by asking."""

    server: str


@contextlib.contextmanager
def explained(asked: Asked) -> Iterator[None]:
    """Turn whatever the transport raises into an `AccessError`."""
    try:
        yield
    except AccessError:
        raise
    except Exception as error:  # noqa: BLE001 - nothing that a server sends may end the daemon
        raise _explain(asked.server, error) from None


def _explain(server: str, error: Exception) -> AccessError:
    for kinds, unreachable, text in _EXPLANATIONS:
        if isinstance(error, kinds):
            return AccessError(text(server, error), unreachable=unreachable)
    said = f"{type(error).__name__}: {wire.one_line(error)}"
    return AccessError(f"the request to {server} failed: {said}")


# What the transport raises; whether nobody has answered then; what to say. The first that fits.
_EXPLANATIONS: tuple[
    tuple[type[Exception] | tuple[type[Exception], ...], bool, Callable[[str, Any], str]], ...
] = (
    (
        aiohttp.ClientConnectorCertificateError,
        False,
        lambda server, error: (
            f"{server} is not trusted: {_reason(error.certificate_error)}: check certificate-authority"
        ),
    ),
    (
        aiohttp.ClientConnectorError,
        True,
        lambda server, error: f"{server} cannot be reached: {_reason(error.os_error)}",
    ),
    ((aiohttp.ServerTimeoutError, TimeoutError), True, lambda server, _: f"{server} does not answer"),
    (ConfigException, False, lambda _, error: wire.one_line(error)),
    (aiohttp.ServerDisconnectedError, True, lambda server, _: f"{server} has hung up"),
    (aiohttp.ClientPayloadError, False, lambda server, error: f"{server} {_broken(error)}"),
    (aiohttp.TooManyRedirects, False, lambda server, _: f"{server} redirects in a circle: check its address"),
    (
        aiohttp.RedirectClientError,
        False,
        lambda server, error: f"{server} redirects to what is no address: {wire.one_line(error)}",
    ),
    (
        aiohttp.ClientResponseError,
        False,
        lambda server, error: f"{server} does not speak HTTP: {wire.one_line(error.message)}",
    ),
    (
        (aiohttp.ClientError, OSError),
        True,
        lambda server, error: (
            f"the connection to {server} broke: {wire.one_line(error) or type(error).__name__}"
        ),
    ),
)


def _broken(error: Exception) -> str:
    packed = "content-encoding" in str(error)
    return f"sends what cannot be unpacked: {wire.one_line(error)}" if packed else "has hung up"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # asyncio's own strerror speaks of a "connect call"
    return wire.one_line(error)
