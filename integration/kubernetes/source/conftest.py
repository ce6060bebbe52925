"""One lab and one API server for all scenarios of a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.source.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def site(able: None, kubernetes_binaries: Path) -> Iterator[Site]:  # noqa: ARG001 - able is a condition
    """The lab and the cluster, with a daemon on host1 that has synced."""
    with Site(f"k8s{os.getpid()}", kubernetes_binaries) as made:
        made.start_daemon()
        yield made
