"""A site where a pool finds and starts scripted workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.tests.worker.scripted import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from userproxy.tests.sockets import Sockets


@pytest.fixture(autouse=True)
def _quiet(quiet: None) -> None:
    """What the pool says of workers that do wrong is not shown."""


@pytest.fixture
async def site(sockets: Sockets) -> AsyncIterator[Site]:
    """Everything that it opened is closed in the end, by whoever has it then."""
    del sockets
    made = Site()
    yield made
    made.shut()
