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

HERE = Path(__file__).parent
FINDER = HERE.parents[1] / "scripts" / "kubernetes-binaries"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios on the shared cluster come last: others are not to have it beside them."""
    here = [number for number, item in enumerate(items) if HERE in item.path.parents]
    ordered = sorted((items[number] for number in here), key=lambda item: "rig" in _fixtures_of(item))
    for number, item in zip(here, ordered, strict=True):
        items[number] = item


def _fixtures_of(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


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


@pytest.fixture(scope="session")
def rig(binaries: Path) -> Iterator[Rig]:
    """A cluster, shared by all scenarios that want one: each says which service proxy its nodes have."""
    with Rig(binaries) as running:
        yield running
