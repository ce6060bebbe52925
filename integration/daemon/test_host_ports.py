"""A Service port keeps its host port for life; where none is left it waits, and says so."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from integration.daemon.traces import crash
from integration.services import host_port, manifest, problems, publish, withdraw
from integration.sockets import connect, listen, pair, seconds_until_refused
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import SERVER1, SERVER2, SERVER_SERVICE
from userproxy.model.address import Address

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

BACKEND = Address(SERVER1.ip, 8080)
LAB_S_OWN = SERVER_SERVICE.name


def test_a_host_port_survives_updates_deletion_and_restarts(lab: Lab) -> None:
    lab.start_daemon("host1")
    names = ("one", "two", "three")
    for number, name in enumerate(names):
        publish(lab, name, f"10.3.241.{40 + number}", [BACKEND])
    ports = {name: host_port(lab, name) for name in names}
    assert sorted(ports.values()) == [10401, 10402, 10403]
    assert host_port(lab, LAB_S_OWN) == 10400

    publish(lab, "one", "10.3.241.50", [], port=81)
    withdraw(lab, "two")
    publish(lab, "four", "10.3.241.51", [BACKEND])
    publish(lab, "two", "10.3.241.41", [BACKEND])
    assert {name: host_port(lab, name) for name in ("two", "three")} == {
        name: ports[name] for name in ("two", "three")
    }
    publish(lab, "one", "10.3.241.40", [BACKEND])
    assert {name: host_port(lab, name) for name in names} == ports
    assert host_port(lab, "four") == 10404

    lab.daemon("host1").stop()
    lab.remove_manifest("one.yaml")
    lab.start_daemon("host1")
    publish(lab, "five", "10.3.241.52", [BACKEND])
    publish(lab, "one", "10.3.241.40", [BACKEND])
    crash(lab)
    lab.start_daemon("host1")
    assert {name: host_port(lab, name) for name in names} == ports
    assert (host_port(lab, "four"), host_port(lab, "five")) == (10404, 10405)


def test_an_occupied_port_is_passed_over(lab: Lab) -> None:
    with listen(lab, "host1", 10400), listen(lab, "host1", 10401):
        lab.start_daemon("host1")
        assert host_port(lab, LAB_S_OWN) == 10402
        assert lab.exec("client", "curl", "-sS", "-m2", f"http://{SERVER_SERVICE.frontend}").returncode == 0
        occupied = [line for line in lab.daemon("host1").output().splitlines() if "occupied" in line]
        assert [port for port in ("10400", "10401") if any(port in line for line in occupied)] == [
            "10400",
            "10401",
        ]


def test_a_crowd_of_occupied_ports_is_passed_over_while_others_are_served(lab: Lab) -> None:
    daemon = lab.start_daemon("host1", "--port-range", "10400-10799")
    publish(lab, "before", "10.3.241.70", [BACKEND])
    with contextlib.ExitStack() as crowd:
        for port in range(10402, 10702):
            crowd.enter_context(listen(lab, "host1", port))
        newcomer = publish(lab, "newcomer", "10.3.241.71", [BACKEND])
        publish(lab, "before", "10.3.241.70", [BACKEND, Address(SERVER2.ip, 8080)])
        withdraw(lab, LAB_S_OWN)
        for frontend in (newcomer, Address("10.3.241.70", 80)):
            assert lab.exec("client", "curl", "-sS", "-m2", f"http://{frontend}").returncode == 0
        assert (host_port(lab, "newcomer"), host_port(lab, "before")) == (10702, 10401)
        assert problems(lab) == ()
    assert daemon.output().count("occupied") == 300


def test_a_range_occupied_to_the_last_port_is_told_and_those_who_have_one_are_served(lab: Lab) -> None:
    lab.start_daemon("host1", "--port-range", "10400-10539")
    with contextlib.ExitStack() as crowd:
        for port in range(10401, 10540):
            crowd.enter_context(listen(lab, "host1", port))
        lab.write_manifest("late.yaml", manifest("late", Address("10.3.241.72", 80), [BACKEND]))
        wait_until("it is told", lambda: bool(problems(lab)), 10.0)
        assert "no host port is left in 10400-10539" in problems(lab)[0]
        assert lab.exec("client", "curl", "-sS", "-m2", f"http://{SERVER_SERVICE.frontend}").returncode == 0
        assert seconds_until_refused(lab, "client", Address("10.3.241.72", 80)) < 0.5
    wait_until("it is served", lambda: host_port(lab, "late") in range(10401, 10540), 10.0)
    assert problems(lab) == ()


def test_a_remembered_port_that_is_occupied_after_a_restart(lab: Lab) -> None:
    lab.start_daemon("host1")
    assert host_port(lab, LAB_S_OWN) == 10400
    crash(lab)
    with listen(lab, "host1", 10400):
        lab.start_daemon("host1")
        assert host_port(lab, LAB_S_OWN) == 10401
        assert lab.exec("client", "curl", "-sS", "-m2", f"http://{SERVER_SERVICE.frontend}").returncode == 0


def test_an_exhausted_range_is_told_and_whoever_waits_is_served_as_soon_as_a_port_is_free(lab: Lab) -> None:
    lab.start_daemon("host1", "--port-range", "10400-10401")
    publish(lab, "second", "10.3.241.60", [BACKEND])
    lab.write_manifest("third.yaml", manifest("third", Address("10.3.241.61", 80), [BACKEND]))
    wait_until("it is told", lambda: bool(problems(lab)), 5.0)
    (problem,) = problems(lab)
    assert "default/third" in problem
    assert "10400-10401" in problem
    (row,) = [row for row in lab.rows("host1", "services") if row["service"] == "default/third"]
    assert row["listener"] is None
    assert row["problems"]
    assert "default/third" in lab.daemon("host1").output()
    # Those who have a port are served.
    for ip in (SERVER_SERVICE.frontend.ip, "10.3.241.60"):
        connect(lab, "client", Address(ip, 80)).close()

    with listen(lab, "server1", 7000) as listener:
        publish(lab, "second", "10.3.241.60", [Address(SERVER1.ip, 7000)])
        client, server = pair(lab, Address("10.3.241.60", 80), listener)
        with client, server:  # the connections of the Service that gives its port up live on
            withdraw(lab, "second")
            wait_until("the third is served", lambda: host_port(lab, "third") == 10401, 3.0)
            connect(lab, "client", Address("10.3.241.61", 80)).close()
            client.sendall(b"x")
            assert server.recv(1) == b"x"
    wait_until("nothing is wrong any more", lambda: not problems(lab), 3.0)


def test_a_range_that_others_occupy_is_told_and_tried_again(lab: Lab) -> None:
    with listen(lab, "host1", 10400):
        lab.start_daemon("host1", "--port-range", "10400-10400", wait=False)
        daemon = lab.daemon("host1")
        wait_until("it is logged", lambda: "occupied" in daemon.output(), 10.0)
        wait_until("it is told", lambda: bool(problems(lab)), 10.0)
    wait_until("it is served", lambda: host_port(lab, LAB_S_OWN) == 10400, 10.0)
    assert lab.exec("client", "curl", "-sS", "-m2", f"http://{SERVER_SERVICE.frontend}").returncode == 0
    assert not problems(lab)
