"""A control side with its neighbours in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from userproxy.tests.control.rig.node import ControlSide

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets


@pytest.fixture
def side(tmp_path: Path, sockets: Sockets) -> ControlSide:
    """It has said nothing yet, and nothing is served."""
    return ControlSide(tmp_path, sockets)
