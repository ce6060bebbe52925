"""What runs beside the nodes: etcd, API server, controller manager, scheduler and CoreDNS."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from integration.cluster.rig.addresses import API_SERVER, DNS, SERVICES
from integration.cluster.rig.space import Space
from integration.kubernetes.cluster import Cluster
from integration.kubernetes.processes import Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

_COREFILE = """\
.:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 0
    }}
}}
"""


class ControlPlane:
    """The API server of the cluster (`api`), and who keeps its objects in order."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        """`directory` exists."""
        self.space = Space("control-plane", directory)
        self._directory = directory
        self._binaries = binaries
        self._servers: list[Server] = []
        self._undo = contextlib.ExitStack()
        self._api: Cluster | None = None

    @property
    def api(self) -> Cluster:
        """The API server, once `start` was called."""
        assert self._api is not None
        return self._api

    def start_machine(self) -> None:
        """Make its network namespace, nothing else."""
        self._undo.callback(self.space.stop)
        self.space.start()

    def start(self) -> None:
        """Start everything; returns when the API server is ready. The namespace has its address.

        Raises:
            ClusterError: something did not start.
        """
        self._api = Cluster(
            self._binaries,
            netns=self.space.netns,
            bind_address=API_SERVER,
            service_cidr=SERVICES,
            apiserver_flags=["--kubelet-preferred-address-types=InternalIP"],
            parent=self._directory,
        )
        self._undo.callback(self._api.stop)
        self._api.start()
        kubeconfig = self._api.admin_kubeconfig
        corefile = self._directory / "Corefile"
        corefile.write_text(_COREFILE.format(address=API_SERVER, kubeconfig=kubeconfig))
        self._start("coredns", "-conf", str(corefile))
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={self._api.directory / 'service-account.key'}",
            f"--root-ca-file={self._api.ca_file}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
        )
        self._start("kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false")

    def publish_dns(self) -> None:
        """Make the Service kube-dns, which every pod asks, before CoreDNS."""
        ports = [{"name": name, "port": 53, "protocol": kind} for name, kind in _DNS_PORTS.items()]
        self.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": "kube-dns",
                    "namespace": "kube-system",
                    "labels": {"k8s-app": "kube-dns"},
                },
                "spec": {"clusterIP": DNS, "ports": ports},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "kube-dns-1",
                    "namespace": "kube-system",
                    "labels": {"kubernetes.io/service-name": "kube-dns"},
                },
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [{"addresses": [API_SERVER], "conditions": {"ready": True}}],
            },
        )

    def fail_if_ended(self) -> None:
        """Raises ClusterError with the end of its log if one of them has ended by itself."""
        for server in self._servers:
            server.fail_if_ended()

    def stop(self) -> None:
        """End everything. May be called at any time, and again."""
        self._undo.close()

    def _start(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        server = Server(command, netns=self.space.netns, log=self._directory / f"{program}.log")
        self._undo.callback(server.kill)
        server.start()
        self._servers.append(server)


_DNS_PORTS: Mapping[str, Any] = {"dns": "UDP", "dns-tcp": "TCP"}
