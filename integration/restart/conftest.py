"""A lab for each scenario of this folder, as they leave nothing as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment without daemons."""
    with Lab(f"{lab_name}-restart", daemons=False) as made:
        yield made
