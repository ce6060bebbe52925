"""A Service without endpoints refuses at once, and serves as soon as one appears."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.services import publish, published
from integration.sockets import connect, echoes, listen, pair, seconds_until_refused
from userproxy.lab.topology import SERVER1
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

NAME, IP = "lonely", "10.3.241.10"
BACKEND = Address(SERVER1.ip, 7000)


@pytest.mark.parametrize("member", ["client", "host1"])
def test_it_refuses_at_once_and_recovers(lab: Lab, member: str) -> None:
    with published(lab, NAME, IP, []) as frontend, listen(lab, "server1", BACKEND.port) as listener:
        seconds = seconds_until_refused(lab, member, frontend)
        print(f"{member} to a Service without endpoints: refused after {seconds * 1000:.1f} ms")
        assert seconds < 0.5

        publish(lab, NAME, IP, [BACKEND])
        connect(lab, member, frontend).close()
        client, server = pair(lab, frontend, listener)
        publish(lab, NAME, IP, [])
        assert seconds_until_refused(lab, member, frontend) < 0.5
        client.close()
        server.close()


def test_whoever_is_connected_stays_when_the_last_endpoint_goes(lab: Lab) -> None:
    with (
        listen(lab, "server1", BACKEND.port) as listener,
        published(lab, NAME, IP, [BACKEND]) as frontend,
    ):
        client, server = pair(lab, frontend, listener)
        with client, server:
            publish(lab, NAME, IP, [])
            assert echoes(client, server)
