"""SIGTERM on the path redirect-to-pod, where the rules are to go: who is connected finishes."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from integration.redirect_to_pod.servers import ask, hold, lives, serving
from integration.redirect_to_pod.services import service, tcp
from userproxy.lab.processes import wait_until
from userproxy.model.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

IP = "10.3.242.8"
FRONTEND = Address(IP, 80)
PORTS = (tcp(80, 7000),)


@pytest.fixture(autouse=True)
def served(lab: Lab) -> Iterator[None]:
    """A Service, and a daemon again for whatever comes next."""
    with serving(lab, ["server2"], 7000), service(lab, "stopping", IP, PORTS, ["server2"]):
        yield
        lab.start_daemon("host1", "--mode", "redirect-to-pod", "--on-stop", "remove")


def stop(lab: Lab) -> None:
    daemon = lab.daemon("host1")
    daemon.send(signal.SIGTERM)
    wait_until("it stops", lambda: " stopping " in daemon.output(), 5.0)
    time.sleep(0.3)


def test_it_ends_with_its_last_connection(lab: Lab) -> None:
    connection, _ = hold(lab, "client", FRONTEND)
    with connection:
        stop(lab)
        assert lives(connection)
        with pytest.raises(ConnectionRefusedError):
            ask(lab, "client", FRONTEND)
        assert lab.daemon("host1").alive
    assert lab.daemon("host1").wait(5.0) == 0
    assert "connections_left_to_the_kernel=0" in lab.daemon("host1").output()
    assert "userproxy" not in lab.exec("host1", "nft", "list", "tables").stdout


def test_a_second_signal_waits_for_nobody(lab: Lab) -> None:
    connection, _ = hold(lab, "client", FRONTEND)
    with connection:
        stop(lab)
        assert lab.daemon("host1").alive
        lab.daemon("host1").send(signal.SIGTERM)
        assert lab.daemon("host1").wait(5.0) == 0
    assert "connections_left_to_the_kernel=1" in lab.daemon("host1").output()


def test_where_others_translate_too_a_connection_outlives_the_daemon(lab: Lab) -> None:
    """As on every Kubernetes node, where a network plugin masquerades."""
    chain = "type nat hook postrouting priority 100; ip daddr 192.0.2.0/24 masquerade;"
    lab.exec("host1", "nft", f"table ip plugin {{ chain out {{ {chain} }}; }}")
    connection, _ = hold(lab, "client", FRONTEND)
    with connection:
        stop(lab)
        lab.daemon("host1").send(signal.SIGTERM)
        assert lab.daemon("host1").wait(5.0) == 0
        assert lives(connection)
    lab.exec("host1", "nft", "delete table ip plugin")
