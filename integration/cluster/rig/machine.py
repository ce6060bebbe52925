"""What the cluster asks of the machine, before anything is changed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from integration.cluster.rig import cgroups
from integration.cluster.rig.node import PLUGINS
from integration.kubernetes.processes import ClusterError
from userproxy.lab import network
from userproxy.lab.network import LabError

_PROGRAMS = (
    "containerd",
    "conntrack",
    "ctr",
    "curl",
    "mount",
    "nft",
    "nsenter",
    "openssl",
    "runc",
    "unshare",
)
_CNI = ("bridge", "host-local", "loopback", "portmap")


def preflight() -> None:
    """See that this machine can carry the cluster.

    Raises:
        ClusterError: something is missing; the message names it and the remedy.
    """
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    missing += [str(PLUGINS / name) for name in _CNI if not (PLUGINS / name).exists()]
    if missing:
        raise ClusterError(f"not here: {', '.join(missing)}; run scripts/install --dev")
    try:
        network.preflight()
    except LabError as error:
        raise ClusterError(str(error)) from None
    mounts = Path("/proc/self/mountinfo").read_text()
    if not file_system(Path("/"), mounts):
        raise ClusterError("this is a chroot into a plain directory: `mount --bind` it onto itself before")
    directory = Path(tempfile.gettempdir()).resolve()
    if file_system(directory, mounts) == "overlay":
        raise ClusterError(
            f"{directory} is an overlay, on which no container's can be mounted: "
            "set TMPDIR to a directory of another file system"
        )
    cgroups.here()


def file_system(directory: Path, mounts: str) -> str:
    """The type of the file system that a directory is on.

    Args:
        directory: absolute, without symbolic links.
        mounts: /proc/self/mountinfo; a mount's place is the fifth field, its type the first after ` - `.

    Returns:
        As in `ext4`; empty for what no mount is above, as in a chroot into a plain directory.
    """
    types = {
        line.split()[4]: line.partition(" - ")[2].split()[0] for line in mounts.splitlines() if " - " in line
    }
    return next((types[str(each)] for each in (directory, *directory.parents) if str(each) in types), "")
