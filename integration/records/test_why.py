"""Why did this client get a reset at 12:03? Asked for each reason, in one command, at default settings."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
from typing import TYPE_CHECKING

import pytest

from integration.records.conftest import LINGER_SECONDS
from integration.records.ways import PORT, WAYS, Scene, address
from integration.restart.load import has_started, workers
from integration.services import publish, published, withdraw
from integration.sockets import echoes, listen, pair, read_all
from integration.udp.servers import serving
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER2
from userproxy.model.address import Address
from userproxy.model.endings import ENDINGS, Reason

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from userproxy.lab.deployment import Lab

NOT_HERE = {Reason.SHUTDOWN, Reason.FAILED, Reason.HANDED_OVER, Reason.RESET, Reason.FORGOTTEN}
"""Reasons that are no way of these; the last two are of what the kernel carries."""


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    with (
        serving(lab, ["server2"]),
        listen(lab, "server2", PORT) as listener,
        published(lab, "plain", "10.3.242.50", [Address(SERVER2.ip, PORT)]) as frontend,
    ):
        yield Scene(lab, listener, frontend)


def test_for_each_reason_it_is_known_who_ended_the_connection_and_why(scene: Scene) -> None:
    lab, began = scene.lab, dt.datetime.now(dt.UTC)
    clients = {reason: way(scene) for reason, way in WAYS.items()}
    since = began.isoformat(timespec="milliseconds")
    table = lab.userproxy("host1", "connections", "--ended", "--client", "10.0.1.3", "--since", since)
    print(table)
    rows = {row["client"]: row for row in lab.rows("host1", "connections", "--ended", "--since", since)}
    assert {reason: rows[client]["reason"] for reason, client in clients.items()} == {
        reason: reason.value for reason in WAYS
    }
    assert WAYS.keys() == set(Reason) - NOT_HERE
    for reason, client in clients.items():
        row = rows[client]
        assert row["ended_by"] == ENDINGS[reason].by.value
        assert row["frontend"] or row["protocol"] == "UDP", "conntrack forgets connections that are reset"
        assert since <= row["ended_at"] <= dt.datetime.now(dt.UTC).isoformat()
        assert any(client in line and line.endswith(reason.value) for line in table.splitlines())
        story = lab.userproxy("host1", "connections", "show", row["id"])
        assert ENDINGS[reason].text in story
        if reason in (Reason.DIAL_FAILED, Reason.CLIENT_RESET):
            print(story)
    only = lab.rows("host1", "connections", "--ended", "--since", since, "--reason", "dial-failed")
    assert [row["client"] for row in only] == [clients[Reason.DIAL_FAILED]]
    refused = [(one["error"], one["ms"] < 1000) for one in only[0]["attempts"]]
    assert refused == [("refused", True)] * 2


def test_a_pod_s_log_leads_back_to_its_client_live_and_afterwards(scene: Scene) -> None:
    lab = scene.lab
    client, server = pair(lab, scene.frontend, scene.listener)
    seen, told = str(Address(*server.getpeername())), address(client)
    assert echoes(client, server)
    (row,) = lab.rows("host1", "who", seen)
    assert (row["client"], row["service"], row["reason"]) == (told, "default/plain", "")
    assert row["frontend"] == str(scene.frontend)
    client.close()
    assert read_all(server) == b""
    server.close()
    (row,) = lab.rows("host1", "who", seen)
    assert (row["client"], row["reason"]) == (told, "client-fin")
    print(lab.userproxy("host1", "who", seen))


@contextlib.contextmanager
def connected(lab: Lab) -> Iterator[socket.socket]:
    """A client of a Service that stays when the daemon goes."""
    with listen(lab, "server2", PORT) as listener:
        frontend = publish(lab, "lasting", "10.3.242.70", [Address(SERVER2.ip, PORT)])
        client, server = pair(lab, frontend, listener)
        with client, server:
            assert echoes(client, server)
            yield client
            withdraw(lab, "lasting")


def ended(lab: Lab, client: socket.socket) -> list[str]:
    rows = lab.rows("host1", "connections", "--ended", "--service", "default/lasting")
    return [row["reason"] for row in rows if row["client"] == address(client)]


def test_over_a_reload_it_is_known_what_was_before(lab: Lab) -> None:
    with connected(lab) as client:
        (earlier,) = workers(lab)
        lab.userproxy("host1", "kill", "--service", "default/lasting")
        lab.daemon("host1").send(signal.SIGHUP)
        wait_until("the daemon has started anew", lambda: has_started(lab, 2), 10.0)
        assert ended(lab, client) == ["killed"]
        wait_until("the earlier worker is gone", lambda: earlier not in workers(lab), 10.0)
        assert ended(lab, client) == ["killed"]


def test_whom_the_stop_of_the_daemon_cut_off_the_next_one_knows(lab: Lab) -> None:
    with connected(lab) as client:
        daemon = lab.daemon("host1")
        daemon.send(signal.SIGTERM)
        wait_until("it stops", lambda: " stopping " in daemon.output(), 5.0)
        daemon.send(signal.SIGTERM)
        daemon.wait(15.0)
        lab.start_daemon("host1", "--linger-seconds", LINGER_SECONDS)
        assert ended(lab, client) == ["shutdown"]
