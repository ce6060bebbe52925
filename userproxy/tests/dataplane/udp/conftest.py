"""UDP in memory, on real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.tests.dataplane.rig.datagrams import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.tests.sockets import Sockets


@pytest.fixture
def exchange(sockets: Sockets) -> Iterator[Exchange]:
    made = Exchange(sockets)
    yield made
    made.shut()
