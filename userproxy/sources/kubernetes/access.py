"""The way to the API server: credentials and TLS as kubernetes_asyncio reads them, bytes as they come."""

from __future__ import annotations

import contextlib
import re
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiohttp
from kubernetes_asyncio.config import ConfigException

from userproxy import __version__
from userproxy.model.counters import Counters
from userproxy.model.metric import BETWEEN
from userproxy.sources.kubernetes import wire
from userproxy.sources.kubernetes.credentials import Client, KubeconfigError, load
from userproxy.sources.kubernetes.failures import AccessError, ForbiddenError, GoneError, explained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0

MAX_BODY = 256 << 20
"""Bytes: a page of a list has some MB, and what is larger would be this node's memory."""

# A path to the server that drops everything is noticed within half a minute, watches being silent by nature.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),  # milliseconds
)

# As Kubernetes' own clients have it.
_NO_ANSWER = "<error>"

_SECONDS = re.compile(r"[0-9]{1,9}")


class Access:
    """A client of the API server that is as good as its credentials are at the moment.

    After a refusal, and after any TLS error, the kubeconfig (or the mounted ServiceAccount) is read
    again for the next request: so rotated tokens, certificates and authorities are taken up, and exec plugins
    run again. One user at a time: a stream that is open would lose its connection then.

    Attributes:
        server: the address of the API server; empty before the credentials have been read.
        counters: of this process: requests.
    """

    def __init__(self, kubeconfig: Path | None, counters: Counters | None = None) -> None:
        """Nothing is read yet.

        Args:
            kubeconfig: the file; None for the ServiceAccount of the pod that this process runs in.
            counters: of this process: requests.
        """
        self._kubeconfig = kubeconfig
        self.counters = Counters() if counters is None else counters
        self._client: Client = None
        self.server = ""

    async def load(self) -> None:
        """Read the credentials, unless that was done before.

        Raises:
            KubeconfigError: that is not possible.
        """
        if self._client is None:
            self._client = await load(self._kubeconfig)
            self.server = str(self._client.configuration.host)

    async def close(self) -> None:
        """Close every connection; the next request reads the credentials again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """The body of what is at a path.

        Raises:
            AccessError: there was no answer, or it was an error.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        with explained(self):
            async with await self._request("GET", path, timeout, query) as response:
                return await self._body(response)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an object; one of that name may exist already.

        Raises:
            AccessError: there was no answer, or it was an error.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        with explained(self):
            async with await self._request("POST", path, timeout, {}, body):
                pass

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Change fields of an object (RFC 7386).

        Raises:
            AccessError: there was no answer, or it was an error.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        with explained(self):
            async with await self._request("PATCH", path, timeout, {}, body):
                pass

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream, such as a watch; the context gives its bytes as they come, to its end.

        Args:
            path: of the resource.
            query: its parameters.
            silence: seconds without a byte after which it counts as dead.

        Raises:
            AccessError: at opening or while reading: there was no answer, or it was an error.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=silence)
        with explained(self):
            response = await self._request("GET", path, timeout, query)
        try:
            _keep_alive(response)
            yield self._chunks(response)
        finally:
            response.close()

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for chunk in response.content.iter_any():
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_BODY:
                response.close()
                raise AccessError(f"{self.server} answers with more than {MAX_BODY >> 20} MiB")
        return b"".join(parts)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with explained(self):
            async for chunk in response.content.iter_any():
                yield chunk

    async def _request(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - handed to aiohttp, which keeps it
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
    ) -> aiohttp.ClientResponse:
        """The response, which is not an error; the caller closes it."""
        try:
            await self.load()
        except KubeconfigError as error:
            raise AccessError(str(error)) from None
        # Uncompressed: inflating a list of thousands of objects costs more than a cluster's network gains.
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"userproxy/{__version__}",
        }
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        client = self._client
        try:
            await client.update_params_for_auth(headers, [], ["BearerToken"])
            with self._counted(method) as codes:
                response: aiohttp.ClientResponse = await client.rest_client.request(
                    method,
                    client.configuration.host + path,
                    query_params=list(query.items()),
                    headers=headers,
                    body=body,
                    _preload_content=False,
                    _request_timeout=timeout,
                )
                codes.append(str(response.status))
        except (aiohttp.ClientSSLError, ConfigException):
            await self.close()
            raise
        if response.status < 300 or (method == "POST" and response.status == 409):  # noqa: PLR2004 - RFC 9110
            return response
        async with response:
            refusal = self._refusal(response, await self._body(response), path)
        if response.status == 401:  # noqa: PLR2004 - RFC 9110
            await self.close()
        raise refusal

    @contextlib.contextmanager
    def _counted(self, method: str) -> Iterator[list[str]]:
        """Count a request by the code that is put into the list; without one there was no answer."""
        host, began = self.server.rpartition("//")[2], monotonic()
        codes: list[str] = []
        try:
            yield codes
        finally:
            code = codes[0] if codes else _NO_ANSWER
            self.counters.api_requests[BETWEEN.join((code, method, host))] += 1
            self.counters.api_times[BETWEEN.join((method, host))].observe(monotonic() - began)

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes, path: str) -> AccessError:
        said = wire.one_line(wire.decode_status(body).message or response.reason or "it does not say why")
        status = response.status
        match status:
            case 410:
                return GoneError(said)
            case 401:
                return AccessError(f"{self.server} does not accept the credentials ({said}): renew the token")
            case 403:
                return ForbiddenError(f"{said}: grant it, as the ClusterRole in scripts/deploy does")
        retry_after = response.headers.get("Retry-After", "")
        seconds = min(float(retry_after), 60.0) if _SECONDS.fullmatch(retry_after) else 0.0
        # The server's own failure is the same for all that is asked of it, and is told once.
        about = "" if status >= 500 or status == 429 else f" to {path}"  # noqa: PLR2004 - RFC 9110
        return AccessError(f"{self.server} answered {status}{about}: {said}", retry_after=seconds)


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection else None
    sock = transport.get_extra_info("socket") if transport else None
    if sock is not None:
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
