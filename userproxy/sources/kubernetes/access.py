"""The way to the API server: credentials and TLS as kubernetes_asyncio reads them, bytes as they come.

The errors here are what an operator reads, so each is one line that names the server and the remedy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import yaml
from kubernetes_asyncio import client as kubernetes
from kubernetes_asyncio import config as kubernetes_config
from kubernetes_asyncio.config import kube_config

from userproxy import __version__
from userproxy.sources.kubernetes import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

# What it has to say, it also raises; here that becomes one line.
logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL)

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_PLUGIN_SECONDS = 60.0

# A path to the server that drops everything is noticed within half a minute, watches being silent by nature.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),  # milliseconds
)

_TROUBLE = (aiohttp.ClientError, OSError, TimeoutError)
# What kubernetes_asyncio raises over a kubeconfig that is not as it expects it.
_MALFORMED = (
    kubernetes_config.ConfigException,
    AssertionError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)

Client: TypeAlias = Any  # kubernetes_asyncio.client.ApiClient, which has no types


class KubeconfigError(Exception):
    """The credentials cannot be read. One line, with the remedy."""


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


class Access:
    """A client of the API server that is as good as its credentials are at the moment.

    After a refusal, and after any trouble with TLS, the kubeconfig (or the mounted ServiceAccount) is read
    again for the next request: so rotated tokens, certificates and authorities are taken up, and exec plugins
    run again. One user at a time: a stream that is open would lose its connection then.

    Attributes:
        server: the address of the API server; empty before the credentials have been read.
    """

    def __init__(self, kubeconfig: Path | None) -> None:
        """Nothing is read yet.

        Args:
            kubeconfig: the file; None for the ServiceAccount of the pod that this process runs in.
        """
        self._kubeconfig = kubeconfig
        self._client: Client = None
        self.server = ""

    async def load(self) -> None:
        """Read the credentials, unless that was done before.

        Raises:
            KubeconfigError: that is not possible.
        """
        if self._client is None:
            self._client = await _load(self._kubeconfig)
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
        with _explained(self.server):
            async with await self._request("GET", path, timeout, query) as response:
                return await response.read()

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an object; one of that name may exist already.

        Raises:
            AccessError: there was no answer, or it was an error.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        with _explained(self.server):
            async with await self._request("POST", path, timeout, {}, body):
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
        with _explained(self.server):
            response = await self._request("GET", path, timeout, query)
        try:
            _keep_alive(response)
            yield self._chunks(response)
        finally:
            response.close()

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with _explained(self.server):
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
        client = self._client
        try:
            await client.update_params_for_auth(headers, [], ["BearerToken"])
            response: aiohttp.ClientResponse = await client.rest_client.request(
                method,
                client.configuration.host + path,
                query_params=list(query.items()),
                headers=headers,
                body=body,
                _preload_content=False,
                _request_timeout=timeout,
            )
        except (aiohttp.ClientSSLError, kubernetes_config.ConfigException):
            await self.close()
            raise
        if response.status < 300 or (method == "POST" and response.status == 409):  # noqa: PLR2004 - RFC 9110
            return response
        async with response:
            refusal = _refusal(response, await response.read())
        if response.status == 401:  # noqa: PLR2004 - RFC 9110
            await self.close()
        raise refusal


async def _load(kubeconfig: Path | None) -> Client:
    settings = kubernetes.Configuration()
    where = str(kubeconfig or "the ServiceAccount of this pod")
    try:
        if kubeconfig is None:
            kubernetes_config.load_incluster_config(client_configuration=settings)
        else:
            _check(kubeconfig)
            async with asyncio.timeout(_PLUGIN_SECONDS):
                await kubernetes_config.load_kube_config(
                    str(kubeconfig), client_configuration=settings, persist_config=False
                )
        # Certificates from inside a kubeconfig pass through temporary files, which nobody needs once the TLS
        # context has read them. Nothing is awaited between the two, so no other load is disturbed.
        try:
            return kubernetes.ApiClient(settings)
        finally:
            kube_config._cleanup_temp_files()  # noqa: SLF001 - there is no public way
    except TimeoutError:
        raise KubeconfigError(f"{where}: its exec plugin is not done after {_PLUGIN_SECONDS:g} s") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise KubeconfigError(f"{where}: cannot be read: {line}{error.problem}") from None
    except (ssl.SSLError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{where}: cannot be read: {_one_line(error)}") from None
    except OSError as error:
        named = error.filename or where
        raise KubeconfigError(f"{named}: {error.strerror or _one_line(error)}") from None
    except _MALFORMED as error:
        said = _one_line(error) or type(error).__name__
        raise KubeconfigError(f"{where}: is no usable kubeconfig: {said}") from None


def _check(kubeconfig: Path) -> None:
    """See that the file is there and is a kubeconfig at all.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    content = yaml.safe_load(kubeconfig.read_text())
    if not isinstance(content, dict):
        raise ValueError("it must be a mapping with clusters, contexts and users")  # noqa: TRY004 - of the file
    if not content.get("current-context"):
        raise ValueError("current-context is missing: `kubectl config use-context` sets it")


@contextlib.contextmanager
def _explained(server: str) -> Any:  # noqa: ANN401 - a context manager's generator
    """Turn whatever the transport raises into an `AccessError`."""
    try:
        yield
    except AccessError:
        raise
    except aiohttp.ClientConnectorCertificateError as error:
        message = f"{server} is not trusted: {_reason(error.certificate_error)}: check certificate-authority"
        raise AccessError(message) from None
    except aiohttp.ClientConnectorError as error:
        raise AccessError(
            f"{server} cannot be reached: {_reason(error.os_error)}", unreachable=True
        ) from None
    except (aiohttp.ServerTimeoutError, TimeoutError):
        raise AccessError(f"{server} does not answer", unreachable=True) from None
    except kubernetes_config.ConfigException as error:
        raise AccessError(_one_line(error)) from None
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
        raise AccessError(f"{server} has hung up", unreachable=True) from None
    except _TROUBLE as error:
        said = _one_line(error) or type(error).__name__
        raise AccessError(f"the connection to {server} broke: {said}", unreachable=True) from None


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> AccessError:
    said = _one_line(wire.decode_status(body).message or response.reason or "")
    match response.status:
        case 410:
            return GoneError(said)
        case 401:
            return AccessError(f"the API server does not accept the credentials ({said}): renew the token")
        case 403:
            return ForbiddenError(f"{said}: grant it, as the ClusterRole in scripts/deploy does")
    retry_after = response.headers.get("Retry-After", "")
    seconds = min(float(retry_after), 60.0) if retry_after.isdecimal() else 0.0
    return AccessError(f"the API server answered {response.status}: {said}", retry_after=seconds)


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection else None
    sock = transport.get_extra_info("socket") if transport else None
    if sock is not None:
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # asyncio's own strerror speaks of a "connect call"
    return _one_line(error)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
