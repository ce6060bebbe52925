"""One lab for the scenarios of a file, with a daemon that redirects to pods: each brings its own Services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1, without its web servers' Service."""
    with Lab(f"{lab_name}-rtp", daemons=False) as made:
        made.start_daemon("host1", "--mode", "redirect-to-pod", "--on-stop", "remove")
        yield made
