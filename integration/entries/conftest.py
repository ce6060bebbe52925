"""A lab for the scenarios of a file: addresses of a cluster that only the gateway routes to host1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab
from userproxy.lab.topology import HOST1

if TYPE_CHECKING:
    from collections.abc import Generator

NETWORK = "192.0.2.0/24"
"""Of external IPs and of load balancers."""


@pytest.fixture(scope="module", params=["redirect-to-host", "redirect-to-pod"])
def lab(request: pytest.FixtureRequest, able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1; the gateway is a client from outside."""
    with Lab(f"{lab_name}-entries", daemons=False) as made:
        for network in (NETWORK, made.deployment.service_network):
            made.exec(made.deployment.gateway, "ip", "route", "add", network, "via", HOST1.ip)
        # By default the kernel tells a client only once a second, after six times, that nobody is there.
        made.exec("host1", "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
        pods = ",".join(host.pod_network for host in made.deployment.hosts)
        made.start_daemon("host1", "--mode", request.param, "--cluster-cidr", pods)
        yield made
