"""A pod is drained, with a time for its connections: whoever carries them, they are reset when it is over."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from integration.services import published
from integration.sockets import PATIENCE_SECONDS, accept, connect, echoes, listen, pair
from userproxy.lab.deployment import Lab
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address
from userproxy.model.service import Path

if TYPE_CHECKING:
    from collections.abc import Generator

PORT = 7400
DRAINED, OTHER = Address(SERVER1.ip, PORT), Address(SERVER2.ip, PORT)
AT_LEAST, AT_MOST = 1.0, 5.0


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    with Lab(f"{lab_name}-drain", daemons=False) as made:
        made.start_daemon("host1", "--on-stop", "remove", "--drain-seconds", "0")
        yield made


@pytest.mark.parametrize("path", Path)
def test_what_is_left_at_a_drained_pod_is_reset_when_its_time_is_over(lab: Lab, path: Path) -> None:
    with (
        listen(lab, "server1", PORT) as at_the_drained,
        listen(lab, "server2", PORT) as at_the_other,
        published(lab, "drained", "10.3.243.1", [DRAINED], path=path) as frontend,
        published(lab, "kept", "10.3.243.2", [OTHER], path=path) as other,
    ):
        ends, kept = pair(lab, frontend, at_the_drained), pair(lab, other, at_the_other)
        began = time.monotonic()
        said = lab.userproxy("host1", "drain", "--end-after", "1s", str(DRAINED))
        assert said.splitlines()[0] == f"{DRAINED} gets no new connections: 1 backend"
        assert echoes(*ends), "it has time"
        for end in ends:
            end.settimeout(PATIENCE_SECONDS)
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        assert AT_LEAST <= time.monotonic() - began < AT_MOST
        assert echoes(*kept), "nobody else's"
        lab.userproxy("host1", "drain", "--undo", str(DRAINED))
        with contextlib.closing(connect(lab, "client", frontend)) as client:
            assert echoes(client, accept(at_the_drained))
        for end in (*ends, *kept):
            end.close()
