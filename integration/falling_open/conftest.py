"""A lab for the scenarios of this folder; each starts daemons of its own, and ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.falling_open.services import written
from integration.redirect_to_pod.servers import serving
from userproxy.lab.deployment import Lab
from userproxy.lab.topology import HOST1

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment without daemons, and Services whose pods say whom they see."""
    with Lab(f"{lab_name}-open", daemons=False) as made, serving(made, ["server1", "server2"], 7100):
        for network, via in (("192.0.2.0/24", HOST1.ip), ("2001:db8::/64", HOST1.ip6)):
            made.exec(made.deployment.gateway, "ip", "route", "add", network, "via", via)
        written(made)
        yield made
