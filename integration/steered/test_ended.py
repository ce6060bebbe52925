"""What became of a steered connection? The kernel carried it, and yet it is told: who, why, how much."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from integration.services import publish, published
from integration.sockets import PATIENCE_SECONDS, connect, echoes, listen, pair, read_all, reset
from integration.steered.processes import steering_pids
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2
from userproxy.model.access_line import AccessLine
from userproxy.model.address import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from pathlib import Path

PORT, NOBODY = 7000, 7001
POD = Address(SERVER2.ip, PORT)
ACCOUNTING = "net.netfilter.nf_conntrack_acct"


@pytest.fixture(scope="module")
def lab(able: None, lab_name: str) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    with Lab(f"{lab_name}-ended", daemons=False) as made:
        made.start_daemon("host1", *flags(made))
        yield made


@pytest.fixture(scope="module")
def listener(lab: Lab) -> Generator[socket.socket]:
    with listen(lab, "server2", PORT) as made:
        yield made


def flags(lab: Lab) -> list[str]:
    """Of the daemon."""
    logs = ["--access-log", "all", "--access-log-file", str(log_of(lab)), "--log-format", "json"]
    stop = ["--on-stop", "remove", "--drain-seconds", "0"]
    return ["--mode", "steered", *stop, "--metrics-per-service", "10", *logs]


def log_of(lab: Lab) -> Path:
    return lab.logs / "steered-access.log"


def told(client: socket.socket) -> str:
    return str(Address(*client.getsockname()[:2]))


def ended(lab: Lab, client: str) -> dict[str, Any]:
    """What is known of a connection that is over."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [row for row in lab.rows("host1", "connections", "--ended") if row["client"] == client]
        return bool(found)

    wait_until(f"the end of {client} is known", look, PATIENCE_SECONDS)
    (row,) = found
    return row


def line_of(lab: Lab, client: str) -> dict[str, Any]:
    """Its line in the access log."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        text = log_of(lab).read_text() if log_of(lab).exists() else ""
        found[:] = [line for line in map(json.loads, text.splitlines()) if line["client"] == client]
        return bool(found)

    wait_until(f"the end of {client} is logged", look, PATIENCE_SECONDS)
    (line,) = found
    return line


def is_reset(end: socket.socket) -> bool:
    try:
        end.settimeout(PATIENCE_SECONDS)
        end.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_why_each_steered_connection_ended_is_told(lab: Lab, listener: socket.socket) -> None:
    reasons: dict[str, str] = {}
    with published(lab, "carried", "10.3.242.1", [POD]) as frontend:
        for first, reason in ((0, "client-fin"), (1, "backend-fin")):
            ends = pair(lab, frontend, listener)
            reasons[told(ends[0])] = reason
            assert echoes(*ends)
            ends[first].close()
            assert read_all(ends[1 - first]) == b""
            ends[1 - first].close()
        client, server = pair(lab, frontend, listener)
        reasons[told(client)] = "reset"
        reset(server)
        assert is_reset(client)
        client, server = pair(lab, frontend, listener)
        told_last = told(client)
        reasons[told_last] = "killed"
        (row,) = (row for row in lab.rows("host1", "connections") if row["client"] == told_last)
        assert (row["bytes_up"], row["path"]) == (None, "steered")
        lab.userproxy("host1", "kill", row["id"])
        assert [is_reset(end) for end in (client, server)] == [True, True]
        assert ended(lab, told_last)["id"] == row["id"], "it is called as it was when it lived"
    with (
        published(lab, "refuses", "10.3.242.2", [Address(SERVER1.ip, NOBODY)]) as frontend,
        pytest.raises(ConnectionRefusedError),
    ):
        connect(lab, "client", frontend)
    rows = {row["client"]: row for row in lab.rows("host1", "connections", "--ended")}
    for client_address, reason in reasons.items():
        row = rows[client_address]
        story = lab.userproxy("host1", "connections", "show", row["id"])
        print(story)
        assert (row["reason"], row["path"]) == (reason, "steered")
        assert (row["service"], row["frontend"], row["backend"]) == (
            "default/carried",
            "10.3.242.1:80",
            str(POD),
        )
        assert (row["bytes_up"], row["bytes_down"]) == (None, None), "the kernel does not count"
        assert "not known" in story
        line = line_of(lab, client_address)
        assert tuple(line) == AccessLine.__struct_fields__
        assert (line["reason"], line["id"], line["path"]) == (reason, row["id"], "steered")
    (who,) = lab.rows("host1", "who", told_last)
    assert (who["source"], who["reason"]) == (told_last, "killed"), "the pod sees the client itself"
    (refused,) = lab.rows("host1", "connections", "--ended", "--service", "default/refuses")
    assert (refused["reason"], refused["backend"]) == ("dial-failed", "")
    assert [attempt["error"] for attempt in refused["attempts"]] == ["refused"]


def test_a_connection_whose_pod_is_removed_ends_for_that(lab: Lab, listener: socket.socket) -> None:
    ip, soon = "10.3.242.3", "1s"
    with published(lab, "removed", ip, [POD], close_on_removal=soon) as frontend:
        client, server = pair(lab, frontend, listener)
        publish(lab, "removed", ip, [Address(SERVER1.ip, PORT)], close_on_removal=soon)
        assert [is_reset(end) for end in (client, server)] == [True, True]
        assert ended(lab, told(client))["reason"] == "backend-removed"
        server.close()


def test_both_ends_are_reset_of_one_that_is_too_old_and_of_one_whose_pod_on_the_bridge_is_gone(
    lab: Lab,
) -> None:
    beside, soon = [Address(SERVER1.ip, PORT)], "1s"
    with (
        listen(lab, "server1", PORT) as listener,
        published(lab, "aged", "10.3.242.6", beside, max_connection_age="2s") as aged,
        published(lab, "moved", "10.3.242.7", beside, close_on_removal=soon) as moved,
    ):
        ends = [*pair(lab, moved, listener), *pair(lab, aged, listener)]
        assert echoes(ends[2], ends[3])
        publish(lab, "moved", "10.3.242.7", [POD], close_on_removal=soon)
        assert [is_reset(end) for end in ends] == [True] * 4


def test_what_was_carried_is_told_where_the_kernel_counts(lab: Lab, listener: socket.socket) -> None:
    lab.exec("host1", "sysctl", "-qw", f"{ACCOUNTING}=1")
    try:
        with published(lab, "counted", "10.3.242.4", [POD]) as frontend:
            client, server = pair(lab, frontend, listener)
            client.sendall(b"?" * 5000)
            name = told(client)
            client.close()
            assert len(read_all(server)) == 5000
            server.close()
            row = ended(lab, name)
            assert 5000 < row["bytes_up"] < 7000, "with headers"
            assert 0 < row["bytes_down"] < 1000
            assert row["packets_up"] > 3
            assert line_of(lab, name)["bytes_up"] == row["bytes_up"]
            client, server = pair(lab, frontend, listener)
            name = told(client)
            reset(server)
            assert is_reset(client)
            assert ended(lab, name)["packets_up"] >= 2, "also of what the kernel forgets at once"
            metrics = lab.exec("host1", "curl", "-s", "http://127.0.0.1:10249/metrics").stdout
            found = [line for line in metrics.splitlines() if "relayed_bytes" in line and "counted" in line]
            up = next(line for line in found if 'direction="up"' in line)
            assert float(up.rpartition(" ")[2]) >= row["bytes_up"]
    finally:
        lab.exec("host1", "sysctl", "-qw", f"{ACCOUNTING}=0")


def test_over_a_reload_and_a_restart_it_is_known_what_was_before(lab: Lab, listener: socket.socket) -> None:
    with published(lab, "lasting", "10.3.242.5", [POD]) as frontend:
        client, server = pair(lab, frontend, listener)
        name = told(client)
        client.close()
        server.close()
        before = ended(lab, name)
        earlier = steering_pids(lab)
        lab.daemon("host1").send(signal.SIGHUP)
        wait_until(
            "another process steers",
            lambda: steering_pids(lab) not in ([], earlier),
            PATIENCE_SECONDS,
        )
        assert ended(lab, name)["id"] == before["id"]
        lab.daemon("host1").stop()
        lab.start_daemon("host1", *flags(lab))
        assert ended(lab, name)["id"] == before["id"]
