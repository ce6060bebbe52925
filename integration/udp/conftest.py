"""A lab for the scenarios of a file: UDP Services, relayed by the daemon on host1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.udp.services import SECOND_NETWORK, SECOND_NODE_PORT
from userproxy.lab.deployment import Lab
from userproxy.lab.topology import HOST1

if TYPE_CHECKING:
    from collections.abc import Generator

NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
"""Of external IPs and of load balancers."""


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1; the gateway is a client from outside."""
    with Lab(f"{lab_name}-udp", daemons=False) as made:
        for network in (*NETWORKS, SECOND_NETWORK):
            via = HOST1.ip6 if ":" in network else HOST1.ip
            made.exec(made.deployment.gateway, "ip", "route", "add", network, "via", via)
        made.exec("host1", "ip", "address", "add", f"{SECOND_NODE_PORT.ip}/24", "dev", "eth0")
        pods = ",".join(network for host in made.deployment.hosts for network in host.pod_networks)
        nodes = f"{made.deployment.host_network},{made.deployment.host_network6},{SECOND_NETWORK}"
        made.start_daemon("host1", "--cluster-cidr", pods, "--nodeport-addresses", nodes, "--workers", "2")
        yield made
