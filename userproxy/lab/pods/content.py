"""What the directory of a lab holds for its pods, and how their programs are run with it.

```
dns/    what the name servers read, if cluster DNS is part of the deployment
etc/    what stands in the /etc of each pod, likewise
```
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from userproxy.lab import network
from userproxy.lab.objects import NAMESPACE
from userproxy.lab.pods import etc, nameserver

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.lab.topology import Deployment, Pod


def preflight(deployment: Deployment) -> None:
    """See that this machine can run the pods of a deployment.

    Raises:
        LabError: something is missing; the message names it.
    """
    network.preflight()
    if deployment.dns:
        network.preflight(["nsd"])
        etc.preflight()


def write(deployment: Deployment, directory: Path) -> None:
    """Write all that the pods need into the directory of their lab."""
    if dns := deployment.dns:
        _write(directory / "dns", nameserver.files(deployment, dns, directory / "dns"))
        _write(directory / "etc", etc.files(dns, NAMESPACE))


def server(pod: Pod, directory: Path) -> list[str]:
    """The argument vector of a pod's server."""
    if pod.serves == "dns":
        return nameserver.argv(pod, directory / "dns")
    return [sys.executable, "-m", "userproxy.lab.pods.webserver", pod.name, str(pod.address.port)]


def command(deployment: Deployment, member: str, directory: Path, *argv: str) -> list[str]:
    """What runs a program in a member whose namespace has been entered: in a pod, with the pod's own /etc."""
    if deployment.dns and any(pod.name == member for pod in deployment.pods):
        return etc.command(directory / "etc", *argv)
    return [*argv]


def _write(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
