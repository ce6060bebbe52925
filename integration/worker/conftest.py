"""A site for each test: names of its own, so that nobody else's workers are found."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest_asyncio

from integration.worker.site import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    made = Site(f"userproxy-test-{uuid.uuid4().hex}-")
    yield made
    await made.shut()
