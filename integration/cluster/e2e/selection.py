"""Which of Kubernetes' own tests there are, and which of them are run. Pure, but for asking e2e.test."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

AREA = "[sig-network] "
GROUPS = (
    "Services ",
    "DNS ",
    "EndpointSlice",
    "Networking ",
    "Conntrack",
    "HostPort",
    "Service endpoints latency",
    "Traffic Distribution",
    "Service CIDRs",
)
"""What has to do with service proxies: regular expressions for the beginning of a name after AREA."""
LEFT_OUT = {
    r"\[Disruptive\]": "they want ssh to the nodes",
    r"\[Serial\]|\[Slow\]": "by choice: minutes of waiting, or nothing that a service proxy has a part in",
    "SCTP|sctp": "no path of userproxy carries it",
    "LoadBalancer": "there is no cloud to give addresses",
    "IPv6": "the cluster is IPv4 alone",
    "OffByDefault": "of features that are off by default",
    "Internet connection": "there is none",
    "IPerf2": "there is no iperf in the image",
}
"""Tests that are never run, by regular expressions for a part of the name, and why."""


def select(names: Iterable[str], groups: Sequence[str] = GROUPS) -> list[str]:
    """Those of the tests that are in one of the groups and not LEFT_OUT, in order."""
    wanted = re.compile(f"{re.escape(AREA)}({'|'.join(groups)})")
    left_out = re.compile("|".join(LEFT_OUT))
    return sorted(name for name in set(names) if wanted.match(name) and not left_out.search(name))


def known(binaries: Path) -> list[str]:
    """The full names of AREA's tests in the e2e.test among the binaries.

    Raises:
        ClusterError: it does not run.
    """
    command = [str(binaries / "e2e.test"), "--list-tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
    return names_in(done.stdout)


def names_in(listing: str) -> list[str]:
    """Out of the lines `FILE:LINE: NAME` that it prints, those of AREA."""
    names = (line.partition(": ")[2].strip() for line in listing.splitlines())
    return sorted({name for name in names if name.startswith(AREA)})
