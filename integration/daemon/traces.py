"""What a daemon does to host1, and what is left of it there."""

from __future__ import annotations

import difflib
import os
import signal
from typing import TYPE_CHECKING

from integration.vitals import family

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab


def kernel_state(lab: Lab) -> dict[str, str]:
    """Everything in which a proxy could leave traces on host1."""
    commands = (
        "nft list ruleset",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "sysctl -a --pattern ^net",
    )
    # The kernel gives interfaces their own IPv6 addresses in its own time. Heartbeats expire.
    volatile = ("netfilter.nf_conntrack_count", "random", "netdev_rss_key", "fe80:", "ff00:", " expires ")
    # Whether our table has an owner now is told by these.
    owned = ("flags owner", "flags")
    return {
        command: "\n".join(
            line.partition(" # progname")[0]
            for line in lab.exec("host1", *command.split()).stdout.splitlines()
            if not any(word in line for word in volatile) and line.strip() not in owned
        )
        for command in commands
    }


def assert_same(now: dict[str, str], before: dict[str, str]) -> None:
    changed = [
        line for kind in now for line in difflib.ndiff(before[kind].splitlines(), now[kind].splitlines())
    ]
    assert [line for line in changed if line[0] in "+-"] == []


def crash(lab: Lab) -> None:
    """SIGKILL for the daemon and its workers, as when the machine runs out of memory."""
    daemon = lab.daemon("host1")
    for pid in reversed(family(daemon.pid)):
        os.kill(pid, signal.SIGKILL)
    daemon.wait(5.0)
