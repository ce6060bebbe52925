"""Scale from zero: a steered client's SYN waits in the queue, and goes to the pod as soon as there is one."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.echo import echo_server
from integration.services import publish, published, withdraw
from integration.sockets import connect, inside
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

POD = Address(SERVER2.ip, 7201)
AT_ONCE_SECONDS = 0.5
PATIENCE_SECONDS = 10.0


class Client:
    """Connects in a thread, as a client does that knows nothing of all this.

    Attributes:
        took: seconds until it was connected or refused; None while it waits.
        heard: what the pod said first; empty if it was refused.
    """

    def __init__(self, lab: Lab, member: str, frontend: Address) -> None:
        self.took: float | None = None
        self.heard = b""
        with inside(lab, member):
            self._socket = socket.socket()
        self._socket.settimeout(PATIENCE_SECONDS)
        self._frontend = frontend.ip, frontend.port
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        with self._socket as sock:
            try:
                sock.connect(self._frontend)
                self.took = time.monotonic() - began
                self.heard = sock.recv(100)
            except ConnectionRefusedError:
                self.took = time.monotonic() - began

    def finish(self) -> tuple[float, bytes]:
        """Both attributes, when it has heard what it is to hear."""
        self._thread.join(PATIENCE_SECONDS)
        assert self.took is not None
        return self.took, self.heard


@pytest.fixture(autouse=True)
def pod(lab: Lab) -> Iterator[None]:
    """It is there; no Service has it yet."""
    with echo_server(lab.namespace("server2"), (POD.ip, POD.port), "woken"):
        yield


def test_the_client_is_sent_to_the_pod_as_soon_as_there_is_one(lab: Lab) -> None:
    frontend = publish(lab, "asleep", "10.3.242.71", [], no_endpoints="hold")
    try:
        clients = {member: Client(lab, member, frontend) for member in ("client", "host1")}
        waited = time.monotonic()
        wait_for_clients(lab, "asleep")
        time.sleep(1.3)  # their SYNs have come again
        assert all(client.took is None for client in clients.values())
        publish(lab, "asleep", "10.3.242.71", [POD], no_endpoints="hold")
        woken = time.monotonic() - waited
        for member, client in clients.items():
            took, heard = client.finish()
            print(
                f"{member}: connected {took:.2f} s after its SYN,",
                f"{(took - woken) * 1000:.0f} ms after the pod was published",
            )
            assert took < woken + AT_ONCE_SECONDS
            assert heard == b"woken " + {"client": b"10.0.1.3", "host1": b"10.100.0.2"}[member], "not relayed"
    finally:
        withdraw(lab, "asleep")


def test_who_has_waited_long_enough_is_refused_and_one_too_many_at_once(lab: Lab) -> None:
    with published(
        lab, "limited", "10.3.242.72", [], no_endpoints="hold", hold_timeout="1500ms", hold_connections="1"
    ) as frontend:
        waits = Client(lab, "client", frontend)
        wait_for_clients(lab, "limited")
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            connect(lab, "host1", frontend)
        assert time.monotonic() - began < AT_ONCE_SECONDS
        took, heard = waits.finish()
        assert (1.4 < took < 1.5 + AT_ONCE_SECONDS, heard) == (True, b"")


def wait_for_clients(lab: Lab, name: str) -> None:
    """Wait until the daemon on host1 tells that clients wait for this Service."""
    log = lab.logs / "host1-daemon.log"

    def is_told() -> bool:
        return any(
            "clients wait" in line and line.rstrip().endswith(f"/{name}")
            for line in log.read_text().splitlines()
        )

    wait_until(f"clients of {name} wait", is_told, PATIENCE_SECONDS)
