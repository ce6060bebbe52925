"""A large cluster, and no daemon yet."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.source.site import Site, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICES = int(os.environ.get("USERPROXY_SERVICES", "5000"))
ENDPOINTS = 20
FILL = Path(__file__).parent / "fill.py"

# Room for all, with the reference Service's address in it. It overlaps with the pods' network, so every
# Service here names its address.
WIDE_CIDR = "10.0.0.0/12"


@pytest.fixture(scope="module")
def large_site(able: None, kubernetes_binaries: Path) -> Iterator[Site]:  # noqa: ARG001 - able is a condition
    """The lab, and a cluster with the reference Service and thousands of others."""
    with Site(f"k8slarge{os.getpid()}", kubernetes_binaries, WIDE_CIDR) as site:
        began = time.monotonic()
        argv = (sys.executable, str(FILL), str(site.cluster.admin_kubeconfig), str(SERVICES), str(ENDPOINTS))
        site.lab.exec("gateway", *argv, timeout=500.0)
        site.cluster.apply(*reference())
        print(f"\n{SERVICES} Services with {ENDPOINTS} endpoints: made in {time.monotonic() - began:.0f} s")
        yield site
