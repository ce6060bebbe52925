"""A lab whose daemon does nothing out of the ordinary, but that a test cannot wait for a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator

LINGER_SECONDS = "1"


@pytest.fixture(scope="session")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1; the kernel there gives up soon on silent peers."""
    with Lab(f"{lab_name}-records", daemons=False) as made:
        made.exec("host1", "sysctl", "-qw", "net.ipv4.tcp_retries2=2")
        made.start_daemon("host1", "--linger-seconds", LINGER_SECONDS)
        yield made
