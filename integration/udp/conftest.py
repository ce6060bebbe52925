"""A lab for the scenarios of a file: UDP Services, relayed by the daemon on host1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab
from userproxy.lab.topology import HOST1

if TYPE_CHECKING:
    from collections.abc import Generator

NETWORK = "192.0.2.0/24"
"""Of external IPs and of load balancers."""


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1; the gateway is a client from outside."""
    with Lab(f"{lab_name}-udp", daemons=False) as made:
        made.exec(made.deployment.gateway, "ip", "route", "add", NETWORK, "via", HOST1.ip)
        pods = ",".join(host.pod_network for host in made.deployment.hosts)
        made.start_daemon("host1", "--cluster-cidr", pods, "--workers", "2")
        yield made
