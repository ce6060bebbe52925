"""The command lines of etcd and kube-apiserver, as values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Addresses:
    """Where the cluster listens: the API server on `address`, etcd on the namespace's 127.0.0.1."""

    address: IPAddress
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def url(self) -> str:
        """The API server's, as in `https://10.100.0.2:6443`."""
        host = f"[{self.address}]" if isinstance(self.address, IPv6Address) else str(self.address)
        return f"https://{host}:{self.port}"

    @property
    def etcd_url(self) -> str:
        """Where etcd serves the API server, in the clear."""
        return f"http://127.0.0.1:{self.etcd_port}"

    @property
    def etcd_peer_url(self) -> str:
        """Where etcd would serve other members; it has none, but insists on listening."""
        return f"http://127.0.0.1:{self.etcd_peer_port}"


def etcd_command(binaries: Path, addresses: Addresses, data: Path) -> list[str]:
    """The argv of a single etcd that stores in `data`.

    It does not fsync: the data is thrown away with the cluster, and survives any crash but the machine's.
    """
    return [
        str(binaries / "etcd"),
        f"--data-dir={data}",
        f"--listen-client-urls={addresses.etcd_url}",
        f"--advertise-client-urls={addresses.etcd_url}",
        f"--listen-peer-urls={addresses.etcd_peer_url}",
        f"--initial-advertise-peer-urls={addresses.etcd_peer_url}",
        f"--initial-cluster=default={addresses.etcd_peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_command(binaries: Path, addresses: Addresses, service_cidr: str) -> list[str]:
    """The argv of the API server, but for the flags of its credentials.

    On a loopback address the API server cannot publish itself as the endpoint of the Service `kubernetes`
    (loopback endpoints are invalid), so it does not try.
    """
    reconciler = "none" if addresses.address.is_loopback else "lease"
    return [
        str(binaries / "kube-apiserver"),
        f"--bind-address={addresses.address}",
        f"--advertise-address={addresses.address}",
        f"--secure-port={addresses.port}",
        f"--etcd-servers={addresses.etcd_url}",
        f"--service-cluster-ip-range={service_cidr}",
        f"--endpoint-reconciler-type={reconciler}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
    ]
