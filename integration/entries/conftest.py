"""A lab for the scenarios of a file: addresses of a cluster that only the gateway routes to host1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab
from userproxy.lab.topology import HOST1

if TYPE_CHECKING:
    from collections.abc import Generator

NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
"""Of external IPs and of load balancers."""


MODES = ("redirect-to-host", "redirect-to-pod")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each scenario with a daemon in each of the modes that its file names, or in these."""
    if "lab" in metafunc.fixturenames:
        modes = getattr(metafunc.module, "MODES", MODES)
        metafunc.parametrize("lab", modes, indirect=True, scope="module")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1; the gateway is a client from outside."""
    with Lab(f"{lab_name}-entries", daemons=False) as made:
        deployment = made.deployment
        for network in (*NETWORKS, deployment.service_network, deployment.service_network6):
            via = HOST1.ip6 if ":" in network else HOST1.ip
            made.exec(deployment.gateway, "ip", "route", "add", network, "via", via)
        # By default the kernel tells a client only once a second, after six times, that nobody is there.
        for setting in ("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"):
            made.exec("host1", "sysctl", "-qw", setting)
        pods = ",".join(network for host in deployment.hosts for network in host.pod_networks)
        made.start_daemon("host1", "--mode", request.param, "--cluster-cidr", pods)
        yield made
