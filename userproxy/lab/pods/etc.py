"""A pod's own /etc: where it asks for names.

The files lie in the lab's directory. Each process of a pod sees them in place of the machine's, in a mount
namespace of its own: `ip netns exec` makes one, with no way back for what is mounted in it, and it is gone
with the process. (The files in /etc/netns, which `ip` itself looks for, would stay behind a lab that was
killed.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from userproxy.lab.network import LabError
from userproxy.lab.pods.nameserver import CLUSTER_DOMAIN

if TYPE_CHECKING:
    from userproxy.lab.topology import Service

ETC = Path("/etc")
"""The machine's own."""

_RESOLV, _NSSWITCH = "resolv.conf", "nsswitch.conf"


def files(dns: Service, namespace: str) -> dict[str, str]:
    """What a pod has in its /etc, as file name -> text.

    Args:
        dns: the Service that answers for names.
        namespace: the pod's, in Kubernetes.
    """
    searched = (f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)
    return {
        # As the kubelet writes it for a pod whose dnsPolicy is ClusterFirst.
        _RESOLV: f"search {' '.join(searched)}\nnameserver {dns.ip}\noptions ndots:5\n",
        # Or a resolver of the machine's own might be asked, by a socket that is in every network namespace.
        _NSSWITCH: "passwd: files\ngroup: files\nhosts: files dns\n",
    }


def command(directory: Path, *argv: str) -> list[str]:
    """The argument vector that runs a program with the files of a directory in its /etc.

    It is for a mount namespace that may be changed.
    """
    names = [name for name in (_RESOLV, _NSSWITCH) if (ETC / name).exists()]
    mounts = [f'mount --bind "$0/{name}" {ETC / name}' for name in names]
    return ["sh", "-c", " && ".join([*mounts, 'exec "$@"']), str(directory), *argv]


def preflight(etc: Path = ETC) -> None:
    """See that a pod can have an /etc of its own on a machine that has this one.

    Raises:
        LabError: there is nothing to mount over.
    """
    file = etc / _RESOLV
    if not file.exists():
        raise LabError(f"there is no {file} that a pod's own could stand in for: make one, it may be empty")
