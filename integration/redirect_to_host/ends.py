"""A connection through the proxy, whose two ends a scenario holds in its hands."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from integration.services import live_connections, published
from integration.sockets import echoes, listen, pair
from userproxy.lab.processes import wait_until
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab
    from userproxy.lab.topology import Pod

PORT = 7000
Ends = tuple[socket.socket, socket.socket]
"""The client's, and the server's."""


@contextlib.contextmanager
def connected(lab: Lab, name: str, ip: str, pod: Pod) -> Iterator[Ends]:
    """A Service with one backend, `PORT` of a pod, and a connection through it, for the time of the block."""
    with published(lab, name, ip, [Address(pod.ip, PORT)]) as frontend:
        with listen(lab, pod.name, PORT) as listener:
            client, server = pair(lab, frontend, listener)
            with client, server:
                assert echoes(client, server)
                yield client, server
        # Those that nobody has accepted end with the listener.
        wait_until("all connections are over", lambda: live_connections(lab, name) == 0, 5.0)
