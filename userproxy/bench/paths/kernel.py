"""Paths without a proxy's process: straight to the pod, and iptables rules of kube-proxy's shape."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from userproxy.bench.paths.base import Path, ScalablePath, first_line
from userproxy.bench.services import BULK_PORT, DNS_PORT, ECHO_PORT, HTTP, HTTP_PORT, MEASURED, SERVER1
from userproxy.bench.site import find_program
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.bench.services import Service

_RESTORE_SECONDS = 120.0


class DirectPath(Path):
    """The client asks a pod by the pod's own address: what everything else is compared with."""

    name = "direct"
    title = "direct to the pod"
    note = "one pod by its own address; no netfilter rule at all: the upper bound"

    @property
    def http(self) -> Address:
        """The first pod's own HTTP server."""
        return Address(SERVER1.ip, HTTP_PORT)

    @property
    def bulk(self) -> Address:
        """The first pod's own iperf3 server."""
        return Address(SERVER1.ip, BULK_PORT)

    @property
    def dns(self) -> Address:
        """The first pod's own name server."""
        return Address(SERVER1.ip, DNS_PORT)

    @property
    def echo(self) -> Address:
        """The first pod's own server for datagrams."""
        return Address(SERVER1.ip, ECHO_PORT)

    def start(self) -> None:
        """There is nothing to start, only to see that it works."""
        self.site.await_services([self.http])


class IptablesRulesPath(ScalablePath):
    """The rules that kube-proxy writes in iptables mode, written by us: for where there is no kube-proxy."""

    name = "iptables-rules"
    title = "iptables rules like kube-proxy's"
    note = "not kube-proxy: its rules in iptables mode, loaded by the benchmark, since it is not installed"
    every_kind = False

    def version(self) -> str:
        """Of iptables."""
        return first_line(find_program("iptables"), "--version")

    def start(self) -> None:
        """Load the rules of the measured Services."""
        self._restore(rules(MEASURED))
        self.site.await_services([self.http])

    def load(self, services: list[Service], patience: float) -> float:
        """Load the rules of them all, in one transaction."""
        began = time.monotonic()
        self._restore(rules([HTTP, *services]))
        self.site.await_services([each.frontend for each in (HTTP, *services)], patience)
        return time.monotonic() - began

    def add(self, service: Service) -> None:
        """Append the rules of one Service."""
        self._restore(rules([service], more=True))

    def remove(self, service: Service) -> None:
        """Delete the rule that leads to the Service's chains; these stay, and cost nothing."""
        match = _to_service(service).removeprefix("-A KUBE-SERVICES ")
        self._restore(f"*nat\n-D KUBE-SERVICES {match}\nCOMMIT\n")

    def _restore(self, text: str) -> None:
        program = find_program("iptables-restore")
        host = self.site.lab.deployment.hosts[0].name
        self.site.lab.exec(host, program, "--noflush", stdin=text, timeout=_RESTORE_SECONDS)


def rules(services: Iterable[Service], *, more: bool = False) -> str:
    """The nat table of kube-proxy in iptables mode, as `iptables-restore --noflush` reads it. Pure.

    Args:
        services: to be served.
        more: they come to those that are there; otherwise they replace them.
    """
    services = list(services)
    chains, lines = [], []
    if not more:
        chains += [":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":KUBE-SERVICES - [0:0]"]
        lines += [f"-A {hook} -j KUBE-SERVICES" for hook in ("PREROUTING", "OUTPUT")]
    for service in services:
        chain = _chain("SVC", service.name)
        ends = [_chain("SEP", f"{service.name} {pod.ip}") for pod in service.pods]
        chains += [f":{each} - [0:0]" for each in (chain, *ends)]
        lines.append(_to_service(service))
        for left, (pod, end) in zip(
            range(len(ends), 0, -1), zip(service.pods, ends, strict=True), strict=True
        ):
            chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
            lines.append(f"-A {chain}{chance} -j {end}")
            to = f"DNAT --to-destination {pod.ip}:{service.target}"
            lines.append(f"-A {end} {_protocol(service)} -j {to}")
    return "\n".join(["*nat", *chains, *lines, "COMMIT", ""])


def _to_service(service: Service) -> str:
    where = f"-d {service.frontend.ip}/32 {_protocol(service)} --dport {service.frontend.port}"
    return f"-A KUBE-SERVICES {where} -j {_chain('SVC', service.name)}"


def _protocol(service: Service) -> str:
    return "-p {0} -m {0}".format(service.protocol.lower())


def _chain(kind: str, text: str) -> str:
    return f"KUBE-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16].upper()}"
