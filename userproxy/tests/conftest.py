"""What all unit tests share.

Property tests judge what happens, never how long it took: the machine may be busy. They try a few dozen cases
each time; `HYPOTHESIS_PROFILE=thorough` has them try a thousand.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from structlog.testing import capture_logs

from userproxy.tests.sockets import Sockets, open_fds

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("quick", _UNTIMED, max_examples=40)
settings.register_profile("thorough", _UNTIMED, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    before = open_fds()
    with ExitStack() as stack:
        yield Sockets(stack)
    assert open_fds() == before


@pytest.fixture
def quiet() -> Iterator[None]:
    """Log lines are not shown."""
    with capture_logs():
        yield
