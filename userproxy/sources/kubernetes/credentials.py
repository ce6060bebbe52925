"""The address of the API server and the credentials for it, as kubernetes_asyncio reads them.

The errors here are what an operator reads, so each is one line that names the file and the remedy.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from kubernetes_asyncio import client as kubernetes
from kubernetes_asyncio import config as kubernetes_config
from kubernetes_asyncio.config import kube_config

from userproxy.sources.kubernetes import wire

if TYPE_CHECKING:
    from pathlib import Path

# What it has to say, it also raises; here that becomes one line.
logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL)

_PLUGIN_SECONDS = 60.0

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


async def load(kubeconfig: Path | None) -> Client:
    """A client with the credentials that there are now.

    Args:
        kubeconfig: the file; None for the ServiceAccount of the pod that this process runs in.

    Raises:
        KubeconfigError: they cannot be read.
    """
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
        raise KubeconfigError(f"{where}: cannot be read: {wire.one_line(error)}") from None
    except OSError as error:
        named = error.filename or where
        raise KubeconfigError(f"{named}: {error.strerror or wire.one_line(error)}") from None
    except _MALFORMED as error:
        said = wire.one_line(error) or type(error).__name__
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
