"""Where the kernel knows no table that is owned and stays, what others do to our rules is put back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from integration.daemon.older_kernel import ON_AN_OLDER_KERNEL
from integration.daemon.test_drain import connected
from integration.sockets import connect, echoes
from userproxy.lab.processes import wait_until

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

SWEEPS = ("flush ruleset", "delete table inet userproxy", "flush table inet userproxy")


def rules(lab: Lab) -> list[str]:
    """Line by line, without what rules note, and forget."""
    table = ("nft", "-s", "list", "table", "inet", "userproxy")
    listed = lab.exec("host1", *table, check=False).stdout.splitlines()
    return sorted(line for line in listed if " expires " not in line)


def test_somebody_removes_the_rules_and_whoever_is_connected_stays_so(lab: Lab) -> None:
    lab.start_daemon("host1", under=ON_AN_OLDER_KERNEL)
    assert "ruleset:     watched" in lab.userproxy("host1", "status")
    with connected(lab) as (frontend, client, server):
        before = rules(lab)
        for command in SWEEPS:
            lab.exec("host1", "nft", command)
            began = time.monotonic()
            wait_until("the rules are back", lambda: rules(lab) == before, 5.0)
            print(f"after `nft {command}` the rules were back in {time.monotonic() - began:.1f} s")
            assert echoes(client, server)
            connect(lab, "client", frontend).close()
