"""A Service whose pods all drop packets keeps its own clients waiting, and nobody else's."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from integration.health.scenes import ask_often, begin_connecting, percentile, silent, told
from integration.services import live_connections, published
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

WAITING = 500
REQUESTS = 200
DELAY_SECONDS = 0.005


@contextlib.contextmanager
def waiting(lab: Lab, frontend: Address, count: int) -> Iterator[list[socket.socket]]:
    """So many clients that wait for a pod."""
    clients = begin_connecting(lab, frontend, count)
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def test_five_hundred_waiting_clients_delay_no_other_service(lab: Lab) -> None:
    dead = [Address(SERVER2.ip, 7500 + number) for number in range(6)]
    with (
        silent(lab, "server2", *(address.port for address in dead)),
        published(lab, "hopeless", "10.3.242.40", dead, health_check="auto") as hopeless,
        published(lab, "other", "10.3.242.41", [SERVER1.address], health_check="auto") as other,
    ):
        for attempt in range(4):
            alone, _ = ask_often(lab, other, REQUESTS)
            with waiting(lab, hopeless, WAITING):
                wait_until("all are accepted", lambda: live_connections(lab, "hopeless") == WAITING, 4.0)
                began = time.monotonic()
                beside, failed = ask_often(lab, other, REQUESTS)
                assert failed == 0
                still = live_connections(lab, "hopeless")
            delay = percentile(beside, 0.99) - percentile(alone, 0.99)
            print(
                f"{attempt + 1}: alone {told(alone)}; beside {WAITING} that wait {told(beside)}; "
                f"p99 {delay * 1000:+.2f} ms ({still} wait after {time.monotonic() - began:.1f} s)"
            )
            wait_until("the waiting are gone", lambda: live_connections(lab, "hopeless") == 0, 10.0)
            if delay <= DELAY_SECONDS:
                break
        assert delay <= DELAY_SECONDS
        with waiting(lab, hopeless, 1) as (client,):
            client.settimeout(10.0)
            began = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) != b"", "it ended in order, as if all had been said"
            print(f"a client without any hope is reset after {time.monotonic() - began:.1f} s")
