"""What the scenarios on a real cluster share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster.rig.caretaker import Caretaker
from integration.cluster.rig.machine import preflight
from integration.cluster.rig.rig import Rig
from integration.kubernetes.processes import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

FINDER = Path(__file__).parents[2] / "scripts" / "kubernetes-binaries"


@pytest.fixture(scope="session")
def binaries() -> Path:
    """The directory of the cluster's programs; never builds them, since that takes minutes.

    Skips, with the reason, where the machine cannot carry the cluster.
    """
    probe = Caretaker([f"userproxy-cluster-{os.getpid()}-probe"])
    try:
        preflight()
        probe.start()
        probe.stop()
    except ClusterError as error:
        pytest.skip(str(error))
    command = [str(FINDER), "--with-kube-proxy", "--with-nodes", "--find-only"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(found.stderr.strip() or f"{FINDER} failed")
    return Path(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def rig(binaries: Path) -> Iterator[Rig]:
    """A cluster whose nodes have no service proxy yet, shared by the scenarios of a file."""
    with Rig(binaries) as running:
        yield running
