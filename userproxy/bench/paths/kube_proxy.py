"""The real kube-proxy: today's in iptables and in nftables mode, and the original in userspace mode."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, ClassVar

from userproxy.bench.paths.apiserver import binaries
from userproxy.bench.paths.base import PathUnavailableError, ScalablePath, first_line
from userproxy.bench.services import (
    HOST,
    HTTP,
    MEASURED,
    addresses_of,
    api_endpoints,
    api_node,
    api_service,
    api_slice,
)
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from userproxy.bench.paths.apiserver import ApiServer
    from userproxy.bench.services import Service
    from userproxy.bench.site import Site
    from userproxy.lab.objects import Object

_CLUSTER_NETWORK = "10.0.0.0/14"


class KubeProxyPath(ScalablePath):
    """kube-proxy on the host, and an API server that it takes its Services from."""

    mode: ClassVar[str]

    def __init__(self, site: Site, cluster: ApiServer) -> None:
        super().__init__(site)
        self._cluster = cluster
        self._kubeconfig = ""

    def version(self) -> str:
        """Of kube-proxy."""
        return first_line(self.program(), "--version").replace("Kubernetes", "kube-proxy")

    def program(self) -> str:
        """Where it is: KUBE_PROXY, or on PATH, or beside the API server.

        Raises:
            PathUnavailableError: nowhere.
        """
        named = os.environ.get("KUBE_PROXY")
        found = named or shutil.which("kube-proxy")
        if not found:
            found = shutil.which("kube-proxy", path=str(binaries()))
        if not found or not os.access(found, os.X_OK):
            raise PathUnavailableError(
                f"KUBE_PROXY={named} is no program"
                if named
                else "kube-proxy is not installed: name it with KUBE_PROXY, "
                "or build it with scripts/kubernetes-binaries --with-kube-proxy"
            )
        return found

    def start(self) -> None:
        """Tell the API server of the Node and the Services, and start it."""
        self._cluster.start()
        if not self._kubeconfig:
            self._kubeconfig = self._cluster.link(self.site)
        self._cluster.create([api_node()])
        self._cluster.set_node_ip(HOST.name, HOST.ip)
        self._create(MEASURED)
        self._start_program()
        self._await([HTTP], 30.0)

    def load(self, services: list[Service], patience: float) -> float:
        """Create what is not there yet, and start it anew."""
        self.stop()
        self._create(services)
        began = time.monotonic()
        self._start_program()
        self._await([HTTP, *services], patience)
        return time.monotonic() - began

    def prepare(self, service: Service) -> None:
        """Create its pods' objects: a second change right after the first one would have to wait a second."""
        self._cluster.create(self.pods_of(service))

    def add(self, service: Service) -> None:
        """Create it."""
        self._cluster.create([api_service(service)])

    def remove(self, service: Service) -> None:
        """Delete its objects."""
        self._cluster.delete("Service", service.name)
        for each in self.pods_of(service):
            self._cluster.delete(each["kind"], each["metadata"]["name"])

    def pods_of(self, service: Service) -> list[Object]:
        """The objects that it learns a Service's pods from."""
        return [api_slice(service)]

    def flags(self) -> tuple[str, ...]:
        """Beside those of every mode."""
        return (f"--cluster-cidr={_CLUSTER_NETWORK}",)

    def _create(self, services: Iterable[Service]) -> None:
        services = list(services)
        self._cluster.create(each for service in services for each in self.pods_of(service))
        self._cluster.create(map(api_service, services))

    def _start_program(self) -> None:
        self._process = self.site.start(
            *(self.name, self.program()),
            *("--kubeconfig", self._kubeconfig, "--hostname-override", HOST.name),
            *("--proxy-mode", self.mode),
            # The namespace may not set what belongs to the whole machine.
            *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
            "--conntrack-tcp-timeout-close-wait=0",
            *self.flags(),
        )

    def _await(self, services: Sequence[Service], patience: float) -> None:
        try:
            self.site.await_services(addresses_of(services), patience)
        except LabError as error:
            last = self._process.last_line() if self._process else "nothing"
            raise PathUnavailableError(f"{error}; its log ends: {last}") from None


class KubeProxyIptablesPath(KubeProxyPath):
    """kube-proxy in iptables mode."""

    name = "kube-proxy-iptables"
    title = "kube-proxy, iptables"
    note = "the kernel carries the bytes, by a chain of rules"
    mode = "iptables"


class KubeProxyNftablesPath(KubeProxyPath):
    """kube-proxy in nftables mode."""

    name = "kube-proxy-nftables"
    title = "kube-proxy, nftables"
    note = "the kernel carries the bytes, by maps of nftables"
    mode = "nftables"


class KubeProxyUserspacePath(KubeProxyPath):
    """The original kube-proxy, the last one that had a userspace mode."""

    name = "kube-proxy-userspace"
    title = "kube-proxy, userspace (original)"
    note = "a Go program whose runtime uses every core; its memory is that with 3,000 connections"
    most_held = 3000  # six files for each; when it runs out of files, it ends
    relays = True
    mode = "userspace"
    most_services = 100
    why_no_more = "it runs iptables several times for each Service, one after another"

    def program(self) -> str:
        """Where KUBE_PROXY_USERSPACE says.

        Raises:
            PathUnavailableError: it names no program.
        """
        named = os.environ.get("KUBE_PROXY_USERSPACE", "")
        if not named:
            raise PathUnavailableError("KUBE_PROXY_USERSPACE does not name a kube-proxy of v1.25 or before")
        if not (FilePath(named).is_file() and os.access(named, os.X_OK)):
            raise PathUnavailableError(f"KUBE_PROXY_USERSPACE={named} is no program")
        return named

    def pods_of(self, service: Service) -> list[Object]:
        """It reads Endpoints; the EndpointSlice is there for the others."""
        return [api_endpoints(service)]

    def flags(self) -> tuple[str, ...]:
        """It masquerades nothing."""
        return ()
