"""A lab whose daemon steers, for all scenarios here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="package")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment, with a daemon on host1 that steers."""
    with Lab(f"{lab_name}-steer", daemons=False) as made:
        made.start_daemon("host1", "--mode", "steered", "--on-stop", "remove")
        yield made
