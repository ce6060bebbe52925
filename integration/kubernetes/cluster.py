"""A real Kubernetes API server for scenarios: etcd and kube-apiserver, nothing else.

There is no kubelet, no scheduler and no controller: Nodes, Services, Endpoints, EndpointSlices and Pods are
what a scenario writes through the API, and no EndpointSlice appears or goes by itself. The API server
creates the `default` namespace, its `kubernetes` Service and the RBAC bootstrap roles.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from integration.kubernetes.processes import ClusterError, Server, run_client
from userproxy.lab.apiserver.commands import Addresses, apiserver_command, etcd_command
from userproxy.lab.apiserver.credentials import Credentials
from userproxy.lab.objects import listed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from userproxy.lab.objects import Object

SERVICE_CIDR = "10.3.240.0/20"  # the reference deployment's
NO_CONTROLLERS = ("--disable-admission-plugins=ServiceAccount",)
"""Without a controller manager no ServiceAccount `default` appears in a namespace, so the admission plugin
that wants one for every Pod is off."""
READY_TIMEOUT = 90.0  # seconds; 4-10 on an idle machine


class KubectlError(ClusterError):
    """Kubectl failed. `status` is its exit status, `stderr` what it printed."""

    def __init__(self, arguments: Sequence[str], status: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: status {status}: {stderr.strip()}")
        self.status = status
        self.stderr = stderr


class Cluster:
    """An etcd and a kube-apiserver with RBAC, TLS and ServiceAccount tokens; a context manager.

    `with Cluster(binaries) as cluster:` goes on once /readyz says ok. All state is in one temporary
    directory, which goes at the end together with both processes. Start it from a thread that outlives it:
    the kernel ends the servers together with the thread that started them.
    """

    def __init__(
        self,
        binaries: Path,
        *,
        netns: str | None = None,
        bind_address: str = "127.0.0.1",
        service_cidr: str = SERVICE_CIDR,
        apiserver_flags: Sequence[str] = NO_CONTROLLERS,
        parent: Path | None = None,
    ) -> None:
        """Prepares a cluster; nothing runs before `start`.

        Args:
            binaries: the directory that `scripts/kubernetes-binaries` prints.
            netns: name or path of a network namespace whose `lo` is up, or None for the current one.
            bind_address: the address of that namespace which the API server listens on, and the one in
                every kubeconfig. Port 6443 in a namespace (one cluster each), a free one otherwise.
            service_cidr: where Service IPs come from; `CIDR4,CIDR6` makes a dual-stack cluster.
            apiserver_flags: more of kube-apiserver's flags; the last of two equal ones wins. These replace
                NO_CONTROLLERS.
            parent: where its directory is made, if not among the temporary files.

        Raises:
            ValueError: `bind_address` is no address that a client can connect to.
        """
        address = ipaddress.ip_address(bind_address)
        if address.is_unspecified:
            raise ValueError(f"bind_address {bind_address}: name the address that clients connect to")
        self.netns = netns
        self._binaries = binaries
        self._addresses = Addresses(address, *((6443, 2379, 2380) if netns else _free_ports()))
        self._service_cidr = service_cidr
        self._apiserver_flags = tuple(apiserver_flags)
        self._parent = parent
        self._running: _Running | None = None
        self._undo = ExitStack()

    @property
    def url(self) -> str:
        """The API server's address, as in `https://127.0.0.1:6443`."""
        return self._addresses.url

    @property
    def directory(self) -> Path:
        """Where the logs (`etcd.log`, `kube-apiserver.log`), kubeconfigs and data are while it runs."""
        return self._parts.directory

    @property
    def ca_file(self) -> Path:
        """PEM that the serving certificate is verified against."""
        return self._parts.credentials.ca_file

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig of a user in system:masters."""
        return self.directory / "admin.kubeconfig"

    @property
    def apiserver_pid(self) -> int | None:
        """The API server's process id (to SIGSTOP and SIGCONT it, say); None while it does not run."""
        return self._parts.apiserver.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts etcd and the API server with empty storage; returns when it is ready.

        Raises:
            ClusterError: either ended or was not ready within READY_TIMEOUT; nothing is left running.
        """
        if self._running is not None:
            raise ClusterError("the cluster is started already")
        with ExitStack() as undo:  # an interrupt too must leave nothing behind
            directory = Path(tempfile.mkdtemp(prefix="userproxy-kubernetes-", dir=self._parent))
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            credentials = Credentials(directory, self.url)
            etcd = Server(
                etcd_command(self._binaries, self._addresses, directory / "etcd"),
                netns=self.netns,
                log=directory / "etcd.log",
            )
            undo.callback(etcd.kill)
            apiserver = Server(
                [
                    *apiserver_command(self._binaries, self._addresses, self._service_cidr),
                    *credentials.apiserver_flags,
                    *self._apiserver_flags,
                ],
                netns=self.netns,
                log=directory / "kube-apiserver.log",
            )
            undo.callback(apiserver.kill)
            undo.callback(setattr, self, "_running", None)
            self._running = _Running(directory, credentials, etcd, apiserver)
            etcd.start()
            self.start_apiserver()
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Kills both processes and removes the directory. May be called at any time, and again."""
        self._undo.close()

    def kill_apiserver(self) -> None:
        """Kills the API server as a crash would; etcd keeps running and keeps the data."""
        self._parts.apiserver.kill()

    def start_apiserver(self) -> None:
        """Starts the API server (again), same address, certificate and keys; returns when it is ready.

        Raises:
            ClusterError: it runs already, or it (or etcd) ended, or it was not ready within READY_TIMEOUT.
        """
        parts = self._parts
        parts.apiserver.start()
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._is_ready():
            parts.etcd.fail_if_ended()
            parts.apiserver.fail_if_ended()
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"kube-apiserver not ready after {READY_TIMEOUT:.0f} s:\n{parts.apiserver.log_tail()}"
                )
            time.sleep(0.1)

    def compact_etcd(self) -> int:
        """Makes etcd forget all history; returns the revision (resourceVersion) it now begins with.

        The API server answers from its own cache, which remembers more than that: call this between
        `kill_apiserver` and `start_apiserver`, and a watch or a list at an older resourceVersion gets
        410 Gone. With `apiserver_flags=["--watch-cache=false"]` it gets that at once.

        Raises:
            ClusterError: etcd does not answer, or refused.
        """
        revision = int(self._etcd("maintenance/status", {})["header"]["revision"])
        answer = self._etcd("kv/compaction", {"revision": revision, "physical": True})
        if "error" in answer and "has been compacted" not in answer["error"]:  # twice at one revision is fine
            raise ClusterError(f"etcd refused to compact at {revision}: {answer['error']}")
        return revision

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None) -> str:
        """Runs kubectl inside the namespace, as the administrator or as `kubeconfig`; returns its stdout.

        Raises:
            KubectlError: it ended with another status than 0.
            ClusterError: it is not installed, or did not end in time.
        """
        built = self._binaries / "kubectl"
        command = [
            str(built) if built.exists() else "kubectl",
            f"--kubeconfig={kubeconfig or self.admin_kubeconfig}",
            f"--cache-dir={self.directory / 'kubectl'}",
            *arguments,
        ]
        done = run_client(self.netns, command, stdin)
        if done.returncode != 0:
            raise KubectlError(arguments, done.returncode, done.stderr)
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Creates or updates API objects (`kubectl apply`), in order.

        Raises:
            KubectlError: the API server refused one of them.
        """
        self.kubectl("apply", "--filename=-", stdin=json.dumps(listed(objects)))

    def token_for(self, service_account: str, namespace: str = "default", duration: str = "12h") -> str:
        """A token of a ServiceAccount by TokenRequest; makes the namespace and the account if need be.

        `duration` is kubectl's notation; the API server grants nothing below 10 minutes.
        """
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": service_account, "namespace": namespace},
            },
        )
        arguments = (service_account, f"--namespace={namespace}", f"--duration={duration}")
        return self.kubectl("create", "token", *arguments).strip()

    def kubeconfig_for(self, service_account: str, namespace: str = "default") -> Path:
        """A kubeconfig that speaks as a ServiceAccount, which has only the rights that RBAC gives it."""
        path = self.directory / f"{namespace}.{service_account}.kubeconfig"
        token = self.token_for(service_account, namespace)
        self._parts.credentials.write_kubeconfig(path, service_account, token)
        return path

    @property
    def _parts(self) -> _Running:
        if self._running is None:
            raise ClusterError("the cluster is not started")
        return self._running

    def _is_ready(self) -> bool:
        """Whether /readyz says ok and the Service `default/kubernetes`, which comes later, is there."""
        if not self.ca_file.exists() or self._curl(f"{self.url}/readyz").stdout != "ok":
            return False
        self._parts.credentials.write_admin_kubeconfig(self.admin_kubeconfig)
        try:
            self.kubectl("get", "--namespace=default", "service/kubernetes")
        except KubectlError:
            return False
        return True

    def _etcd(self, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """One call of etcd's JSON gateway; an answer with `error` is returned as it is."""
        url = f"{self._addresses.etcd_url}/v3/{method}"
        done = self._curl("--data", json.dumps(request), url)
        if done.returncode != 0:
            raise ClusterError(f"etcd does not answer {url}: {done.stderr.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _curl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--silent", "--show-error", "--max-time", "10", "--cacert", str(self.ca_file))
        return run_client(self.netns, ["curl", *options, *arguments])


@dataclass(frozen=True)
class _Running:
    directory: Path
    credentials: Credentials
    etcd: Server
    apiserver: Server


def _free_ports(count: int = 3) -> list[int]:
    """TCP ports of 127.0.0.1 that nothing listens on now (another process may still take them)."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
