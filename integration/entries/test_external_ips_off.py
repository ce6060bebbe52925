"""A node that serves no external IPs: the Service's other entries work, and its owner is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.entries.test_entries import BOTH, CLUSTER_IPS, ENTRIES, EXTERNAL_IPS, pods_at, web
from integration.services import problems
from integration.sockets import PATIENCE_SECONDS
from userproxy.lab import objects
from userproxy.lab.processes import wait_until
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab


def test_external_ips_can_be_switched_off(lab: Lab) -> None:
    with AdminClient(lab.admin_socket("host1")) as admin:
        mode = admin.status().mode
    lab.daemon("host1").stop()
    lab.start_daemon("host1", "--external-ips", "false", "--mode", mode)
    lab.write_manifest("web.yaml", objects.manifest(web(["server1", "server2"])))
    wait_until("web is served", lambda: pods_at(lab, "client", CLUSTER_IPS[0]) == BOTH, PATIENCE_SECONDS)
    for name, address in ENTRIES.items():
        expected = set() if address in EXTERNAL_IPS else BOTH
        assert pods_at(lab, "host1", address) == expected, name
    (problem,) = problems(lab)
    print(problem)
    off = ", ".join(address.ip for address in EXTERNAL_IPS)
    assert problem.startswith(f"default/web: spec.externalIPs: {off} are not served")
