"""A lab for all scenarios of this folder, and for each of them a Service that nobody has asked before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.nothing_refused.site import Site
from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture(scope="session")
def loaded_lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    with Lab(f"{lab_name}-storm", daemons=False) as made:
        yield made


@pytest.fixture
def site(loaded_lab: Lab) -> Iterator[Site]:
    """The Service with its pods. No daemon runs on host1, and nothing of one is in the kernel."""
    with Site(loaded_lab) as made:
        yield made
