"""Labs as `userproxy lab` makes them, for the scenarios of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on each host."""
    with Lab(f"{lab_name}-both") as made:
        yield made


@pytest.fixture(scope="module")
def bare_lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment without daemons: pods, web servers and routes."""
    with Lab(f"{lab_name}-bare", daemons=False) as made:
        yield made
