"""A site where a crew finds and starts scripted steering processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.tests.worker.steering.scripted import CrewSite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from userproxy.tests.sockets import Sockets


@pytest.fixture
async def site(sockets: Sockets) -> AsyncIterator[CrewSite]:
    """Everything that it opened is closed in the end, by whoever has it then."""
    del sockets
    made = CrewSite()
    yield made
    made.shut()
