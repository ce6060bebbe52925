"""One lab for all scenarios of this folder: each brings Services of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.lab.deployment import Lab

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with a daemon on host1, of two workers, which scenarios leave as it was."""
    with Lab(f"{lab_name}-health", daemons=False) as made:
        made.start_daemon("host1", "--workers", "2")
        yield made
