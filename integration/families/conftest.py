"""A lab for each scenario: nodes lose addresses here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(able: None, lab_name: str) -> Iterator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment, without a daemon."""
    with Lab(f"{lab_name}-families", daemons=False) as made:
        yield made
