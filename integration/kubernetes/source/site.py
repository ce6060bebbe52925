"""The lab with a real API server on its gateway, and on host1 a daemon that follows it.

The daemon speaks as the ServiceAccount of `scripts/deploy`, with the rights that the ClusterRole there gives.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.kubernetes.cluster import Cluster, KubectlError
from userproxy.lab.deployment import START_SECONDS, Lab
from userproxy.lab.objects import node
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import REFERENCE, SERVER_SERVICE, api_objects
from userproxy.ops.client import AdminClient, AdminError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from userproxy.lab.objects import Object
    from userproxy.lab.processes import Process

DEPLOY = Path(__file__).parents[3] / "scripts" / "deploy"
LOAD = Path(__file__).parent / "load.py"
PATIENCE_SECONDS = 15.0
HOST = "host1"
ZONE = "zone-1"
URL = f"http://{SERVER_SERVICE.frontend.ip}"


class Site:
    """A lab and a cluster, up as long as the context lasts."""

    def __init__(self, name: str, binaries: Path, service_cidr: str = REFERENCE.service_network) -> None:
        self.lab = Lab(name, daemons=False)
        self.cluster = Cluster(
            binaries,
            netns=self.lab.namespace(REFERENCE.gateway),
            bind_address=REFERENCE.gateway_ip,
            service_cidr=service_cidr,
        )
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.lab)
            undo.enter_context(self.cluster)
            self.cluster.kubectl("apply", "--kustomize", str(DEPLOY))
            self.cluster.apply(node(HOST, ZONE))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @cached_property
    def kubeconfig(self) -> Path:
        """That of the daemon's ServiceAccount."""
        return self.cluster.kubeconfig_for("userproxy", "kube-system")

    @property
    def daemon(self) -> Process:
        """The daemon on host1."""
        return self.lab.daemon(HOST)

    def start_daemon(self, *extra: str, kubeconfig: Path | None = None, wait: bool = True) -> Process:
        """Start the daemon on host1; `wait` for its first sync."""
        source = ("--kubeconfig", str(kubeconfig or self.kubeconfig))
        process = self.lab.start_daemon(HOST, "--log-format", "json", *extra, wait=False, source=source)
        if wait:
            wait_until("the daemon has synced", self.is_synced, START_SECONDS)
        return process

    def is_synced(self) -> bool:
        """Whether the daemon has applied what the API server has."""
        with contextlib.suppress(AdminError), AdminClient(self.lab.admin_socket(HOST)) as admin:
            return admin.status().source.synced and bool(self.actions())
        return False

    def may(self, verb: str, resources: str) -> bool:
        """Whether the daemon's ServiceAccount has this right."""
        account = "--as=system:serviceaccount:kube-system:userproxy"
        try:
            self.cluster.kubectl("auth", "can-i", verb, resources, account)
        except KubectlError:
            return False
        return True

    def ask(self) -> str:
        """Which pod answers the client, empty if none does; packets to nowhere are not waited for long."""
        options = ("--silent", "--max-time", "2", "--connect-timeout", "0.3")
        answer = self.lab.exec("client", "curl", *options, URL, check=False).stdout
        return answer.partition(" ")[0]

    def answering(self) -> set[str]:
        """Which pods answer the client, in four requests."""
        return {self.ask() for _ in range(4)} - {""}

    def served(self) -> set[str]:
        """The Service ports that the daemon has."""
        return {row["service"] for row in self.lab.rows(HOST, "services")}

    def is_silent(self) -> bool:
        """Whether no pod answers the client."""
        return not self.ask()

    def page(self, path: str, port: int = 10256) -> tuple[int, str]:
        """What the daemon answers over HTTP, asked on host1: status and body."""
        url = f"http://127.0.0.1:{port}{path}"
        said = self.lab.exec(HOST, "curl", "--silent", "--write-out", "\n%{http_code}", url, check=False)
        body, _, status = said.stdout.rpartition("\n")
        return int(status), body

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """What the daemon has logged, as fields; only one kind of event if it is named."""
        lines = (line for line in self.daemon.output().splitlines() if line.startswith("{"))
        return [entry for entry in map(json.loads, lines) if not event or entry.get("event") == event]

    def actions(self) -> list[dict[str, Any]]:
        """Each plan that the daemon has applied."""
        return self.log("applied")


def reference(**spec: object) -> tuple[Object, Object]:
    """The reference Service and its EndpointSlice; keywords replace fields of the Service's spec."""
    service, endpoints = api_objects(REFERENCE, SERVER_SERVICE)
    service["spec"] |= spec
    return service, endpoints


def with_pods(endpoints: Object, *ips: str) -> Object:
    """The same slice with only these of its endpoints."""
    kept = [each for each in endpoints["endpoints"] if each["addresses"][0] in ips]
    return {**endpoints, "endpoints": kept}


def start_load(site: Site, concurrency: int = 4) -> Process:
    """Have the client ask the reference Service without a pause, so many requests at a time."""
    frontend = SERVER_SERVICE.frontend
    argv = (sys.executable, str(LOAD), frontend.ip, str(frontend.port), str(concurrency), "0.01")
    return site.lab.start(f"load-{time.monotonic_ns()}", "client", *argv)


def end_load(load: Process) -> dict[str, Any]:
    """Stop asking; returns how it went."""
    load.send(signal.SIGTERM)
    load.wait(15.0)
    outcome: dict[str, Any] = json.loads(load.last_line())
    return outcome


def seconds_until(holds: Callable[[], bool], limit: float = PATIENCE_SECONDS) -> float:
    """How long it takes until something holds.

    Raises:
        AssertionError: it does not, within the limit.
    """
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < limit, f"not so after {limit:g} s"
        time.sleep(0.01)
    return time.monotonic() - began
