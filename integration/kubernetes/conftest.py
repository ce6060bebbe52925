"""What the scenarios against a real API server share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from integration.kubernetes.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

FINDER = Path(__file__).parents[2] / "scripts" / "kubernetes-binaries"


@pytest.fixture(scope="session")
def kubernetes_binaries() -> Path:
    """The directory of kube-apiserver and etcd; never builds them, since that takes minutes."""
    found = subprocess.run([str(FINDER), "--find-only"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        _cannot_run(found.stderr.strip() or f"{FINDER} failed")
    return Path(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def cluster(kubernetes_binaries: Path) -> Iterator[Cluster]:
    """A cluster on loopback, one for all scenarios of a file."""
    with Cluster(kubernetes_binaries) as running:
        yield running


@pytest.fixture
def network_namespace() -> Iterator[str]:
    """The name of an empty network namespace of our own, `lo` up."""
    if os.geteuid() != 0:
        _cannot_run("a network namespace needs root: run as root")
    name = f"userproxy-kubernetes-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _cannot_run(reason: str) -> NoReturn:
    """A skip on a person's machine; a failure where CI=true, lest the scenarios silently stop running."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
