"""`userproxy connections` shows what the kernel carries to pods, too, as conntrack knows it."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.redirect_to_pod.servers import ask_udp, hold, lives, serving, udp_client
from integration.redirect_to_pod.services import put, service, tcp, udp
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

IP = "10.3.242.2"
TCP, UDP = tcp(80, 7000), udp(80, 7000)
FRONTEND = Address(IP, 80)
KEPT = ("net.netfilter.nf_conntrack_acct", "net.netfilter.nf_conntrack_timestamp")


@pytest.fixture
def accounting(lab: Lab) -> None:
    """The kernel of host1 counts bytes and notes times from now on; the daemon never switches that on."""
    for setting in KEPT:
        lab.exec("host1", "sysctl", "-w", f"{setting}=1")


def listed(lab: Lab, *options: str) -> list[dict[str, Any]]:
    return lab.rows("host1", "connections", *options)


def counted(lab: Lab, name: str) -> tuple[int, int, int]:
    """The connections of a Service as `services`, `backends` and `status` count them, after a second."""
    time.sleep(1.1)  # counts are made at most once a second
    in_services = sum(row["connections"] for row in lab.rows("host1", "services") if name in row["service"])
    in_backends = sum(row["connections"] for row in lab.rows("host1", "backends") if name in row["service"])
    (total,) = [
        int(line.split()[1])
        for line in lab.userproxy("host1", "status").splitlines()
        if "connections:" in line
    ]
    return in_services, in_backends, total


def backends(lab: Lab) -> dict[str, tuple[str, int]]:
    """State and connections of each backend of the scenario's Service, by address."""
    rows = [row for row in lab.rows("host1", "backends") if row["service"] == "default/leaving:tcp-80"]
    return {row["backend"]: (row["state"], row["connections"]) for row in rows}


def test_a_connection_is_shown_from_its_first_byte_to_its_last(lab: Lab) -> None:
    with serving(lab, ["server2"], 7000), service(lab, "shown", IP, [TCP, UDP], ["server2"]):
        connection, _ = hold(lab, "client", FRONTEND)
        with connection:
            client = Address(*connection.getsockname())
            (row,) = listed(lab, "--service", "default/shown")
            assert row | {"id": "", "age_seconds": 0, "idle_seconds": 0} == {
                "id": "",
                "protocol": "TCP",
                "service": "default/shown:tcp-80",
                "client": str(client),
                "frontend": str(FRONTEND),
                "listener": None,
                "source": str(client),
                "backend": "10.0.2.2:7000",
                "state": "established",
                "path": "redirect-to-pod",
                "started_at": "",
                "age_seconds": 0,
                "idle_seconds": 0,
                "bytes_up": None,
                "bytes_down": None,
                "unknown": ["age_seconds", "bytes_up", "bytes_down"],
            }
            assert row["id"].startswith("ct-")
            for option, value in (("--client", client.ip), ("--backend", "10.0.2.2:7000")):
                assert [each["id"] for each in listed(lab, option, value)] == [row["id"]]
            assert listed(lab, "--backend", "10.0.1.2") == []
            assert counted(lab, "shown") == (1, 1, 1)
        assert [row["state"] for row in listed(lab)] in ([], ["half-closed"], ["closing"])
        time.sleep(0.5)
        assert listed(lab) == [], "what is over is not shown, though conntrack keeps it for two minutes"
        assert counted(lab, "shown") == (0, 0, 0)


@pytest.mark.usefixtures("accounting")
def test_bytes_and_times_are_shown_where_the_kernel_keeps_them(lab: Lab) -> None:
    with serving(lab, ["server2"], 7000), service(lab, "counted", IP, [TCP], ["server2"]):
        connection, _ = hold(lab, "client", FRONTEND)
        with connection:
            connection.sendall(bytes(4000))
            received = 0
            while received < 4000:
                received += len(connection.recv(4000))
            time.sleep(2.1)
            (row,) = listed(lab)
            assert 4000 < row["bytes_up"] < 6000, "with headers"
            assert 4000 < row["bytes_down"] < 6000
            assert 2 <= row["age_seconds"] < 6
            assert 2 <= row["idle_seconds"] <= row["age_seconds"]
            assert abs(row["age_seconds"] - seconds_since(row["started_at"])) < 3


def seconds_since(moment: str) -> float:

    return time.time() - dt.datetime.fromisoformat(moment).timestamp()


def test_a_pod_that_asks_itself_is_shown_as_it_sees_itself(lab: Lab) -> None:
    with serving(lab, ["server1"], 7000), service(lab, "itself", IP, [TCP], ["server1"]):
        connection, _ = hold(lab, "server1", FRONTEND)
        with connection:
            (row,) = listed(lab)
            assert (row["client"].split(":")[0], row["source"].split(":")[0]) == ("10.0.1.2", "10.0.1.1")


def test_udp_is_shown_with_the_state_that_conntrack_gives_it(lab: Lab) -> None:
    with (
        serving(lab, ["server2"], 7000),
        service(lab, "datagrams", IP, [UDP], ["server2"]),
        udp_client(lab, "client", FRONTEND) as client,
    ):
        ask_udp(client)
        (row,) = listed(lab)
        assert (row["protocol"], row["state"], row["frontend"]) == ("UDP", "replied", str(FRONTEND))
        time.sleep(2.2)
        ask_udp(client)
        assert [row["state"] for row in listed(lab)] == ["assured"]


def test_both_paths_side_by_side_are_told_apart(lab: Lab) -> None:
    other = Address("10.3.242.3", 80)
    with (
        serving(lab, ["server2"], 7000),
        service(lab, "pods", IP, [TCP], ["server2"]),
        service(lab, "host", other.ip, [TCP], ["server2"], path="redirect-to-host"),
    ):
        one, two = hold(lab, "client", FRONTEND)[0], hold(lab, "client", other)[0]
        with one, two:
            rows = {row["service"]: row for row in listed(lab)}
            assert rows["default/pods:tcp-80"]["path"] == "redirect-to-pod"
            assert rows["default/host:tcp-80"]["path"] == "redirect-to-host"
            assert rows["default/host:tcp-80"]["listener"].startswith("10.100.0.2:")
            assert len(rows) == len(listed(lab)) == 2, "the relay's own two legs are no further rows"


def test_a_connection_to_a_pod_that_is_gone_is_left_alone_and_watched_until_it_is_over(lab: Lab) -> None:
    with (
        serving(lab, ["server1", "server2"], 7000),
        service(lab, "leaving", IP, [TCP], ["server1"]),
    ):
        connection, _ = hold(lab, "client", FRONTEND)
        with connection:
            put(lab, "leaving", IP, [TCP], ["server2"])
            assert lives(connection)
            assert [row["backend"] for row in listed(lab)] == ["10.0.1.2:7000"]
            assert counted(lab, "leaving") == (1, 1, 1)
            assert backends(lab) == {"10.0.2.2:7000": ("up", 0), "10.0.1.2:7000": ("removed", 1)}
        time.sleep(0.5)
        assert counted(lab, "leaving") == (0, 0, 0)
        assert backends(lab) == {"10.0.2.2:7000": ("up", 0)}
