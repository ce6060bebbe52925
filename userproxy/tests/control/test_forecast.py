"""What would be served, told without a daemon: that is what a daemon then does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy.control.forecast import Forecast, forecast
from userproxy.control.host_address import HostAddress, Surroundings
from userproxy.control.port_file import PortFile
from userproxy.control.reconcile import context_of
from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.network import NodeNetwork
from userproxy.model.service import Entry, EntryKind, Protocol, ServicePort, TrafficPolicy
from userproxy.model.service import Path as TrafficPath
from userproxy.model.settings import NoEndpoints, Settings
from userproxy.model.snapshot import Node, Problem, Snapshot
from userproxy.planner.context import PlanContext
from userproxy.tests.control.rig.node import (
    CART,
    POD1,
    POD2,
    WEB,
    ControlSide,
    config,
    many,
    service,
    snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

    from userproxy.tests.sockets import Sockets

AROUND = Surroundings(addresses=("10.100.0.2",), uplinks=("eth0",))


def told(wanted: Snapshot, tmp_path: Path, ports: str = "10400-10999", **settings: object) -> Forecast:
    return forecast(config(ports, state_dir=tmp_path, **settings), wanted, lambda: AROUND)


def everywhere(**changes: object) -> ServicePort:
    """Reached in every way."""
    entries = (
        Entry(EntryKind.CLUSTER_IP, Address("10.3.0.1", 80)),
        Entry(EntryKind.NODE_PORT, Address("0.0.0.0", 30080)),  # noqa: S104 - as the source has it
        Entry(EntryKind.EXTERNAL_IP, Address("192.0.2.1", 80)),
    )
    return msgspec.structs.replace(service(WEB), entries=entries, **changes)


@pytest.mark.parametrize("mode", list(TrafficPath))
async def test_a_daemon_then_does_what_was_told(tmp_path: Path, sockets: Sockets, mode: TrafficPath) -> None:
    wanted = snapshot(*many(20), service(CART, "10.3.0.9:443", path=TrafficPath.REDIRECT_TO_POD))
    daemon = ControlSide(tmp_path / "daemon", sockets, config(mode=mode))
    await daemon.apply(wanted)
    found, done = told(wanted, tmp_path, mode=mode).state, daemon.reconciler.actual
    for part in ("serves", "captures", "guards", "cluster_ips", "ranges", "pods", "perimeter", "workers"):
        assert getattr(found, part) == getattr(done, part)
    assert len(found.captures) == 21


def test_what_is_configured_is_planned_with(tmp_path: Path) -> None:
    chosen: dict[str, object] = {
        "mode": TrafficPath.REDIRECT_TO_POD,
        "cluster_ips_from_outside": True,
        "udp_idle_seconds": 7.0,
        "fall_open": False,
        "workers": 3,
        "cluster_cidr": "10.0.0.0/14",
    }
    settings = config("20000-20009", state_dir=tmp_path, **chosen)
    made = context_of(settings, snapshot(), HostAddress(settings, surroundings=lambda: AROUND))
    assert made == PlanContext(
        node=Node("host1"),
        network=NodeNetwork(("10.100.0.2",), ("10.100.0.2",), ("eth0",), ("10.0.0.0/14",)),
        mode=TrafficPath.REDIRECT_TO_POD,
        ports=range(20000, 20010),
        closed=False,
        udp_idle=7.0,
        fall_open=False,
        workers=3,
    )


def test_each_pool_is_told_with_its_entries_and_pods(tmp_path: Path) -> None:
    local = everywhere(external_traffic_policy=TrafficPolicy.LOCAL)
    pods = (Endpoint(address=POD1, node="host1"), Endpoint(address=POD2, node="host2"))
    one, two = told(Snapshot({WEB: local}, {WEB: pods}), tmp_path).services
    assert (one.policy, two.policy) == ("Cluster", "Local")
    assert set(one.entries) == {
        "cluster-ip 10.3.0.1:80",
        "node-port 10.100.0.2:30080",
        "node-port 127.0.0.1:30080",
        "external-ip 192.0.2.1:80",
    }
    assert set(two.entries) == {"node-port 10.100.0.2:30080", "external-ip 192.0.2.1:80"}
    assert (one.outcome, one.path, one.listener) == ("served", "redirect-to-host", "10.100.0.2:10400")
    assert (one.backends, two.backends) == (("10.0.1.2:8080", "10.0.2.2:8080"), ("10.0.1.2:8080",))
    assert (one.endpoints, two.endpoints) == (2, 2)


def test_to_pods_there_is_no_listener(tmp_path: Path) -> None:
    (row,) = told(snapshot(service(path=TrafficPath.REDIRECT_TO_POD)), tmp_path).services
    assert (row.outcome, row.listener) == ("served", None)
    assert row.backends == ("10.0.1.2:8080", "10.0.2.2:8080")


@pytest.mark.parametrize("path", list(TrafficPath))
@pytest.mark.parametrize(
    ("changes", "endpoints", "outcome", "reason"),
    [
        ({}, (), "refused", "it has no endpoints"),
        ({}, (Endpoint(address=POD1, ready=False),), "refused", "of its 1 endpoints none may be picked"),
        (
            {"internal_traffic_policy": TrafficPolicy.LOCAL},
            (Endpoint(address=POD1, node="host2"),),
            "dropped",
            "its policy is Local, and none of its endpoints is on this node",
        ),
        ({"settings": Settings(no_endpoints=NoEndpoints.HOLD)}, (), "held", "it has no endpoints"),
    ],
)
def test_what_reaches_nobody_is_told_with_the_reason(
    tmp_path: Path,
    path: TrafficPath,
    changes: dict[str, object],
    endpoints: tuple[Endpoint, ...],
    outcome: str,
    reason: str,
) -> None:
    one = msgspec.structs.replace(service(path=path), **changes)
    (row,) = told(Snapshot({WEB: one}, {WEB: endpoints}), tmp_path).services
    assert (row.outcome, row.reason, row.backends) == (outcome, reason, ())


def test_a_service_without_a_host_port_is_refused_for_that(tmp_path: Path) -> None:
    found = told(snapshot(*many(2)), tmp_path, ports="10400-10400")
    assert [row.outcome for row in found.services] == ["served", "refused"]
    assert found.services[1].reason == "no host port is left for it"
    assert [problem.reason for problem in found.problems] == ["PortRangeExhausted"]


def test_a_service_of_another_family_is_left_out(tmp_path: Path) -> None:
    found = told(snapshot(service(WEB, "[fd00::1]:80")), tmp_path)
    (row,) = found.services
    assert (row.outcome, row.family, row.entries) == ("left-out", "IPv6", ("cluster-ip [fd00::1]:80",))
    assert [problem.reason for problem in found.problems] == ["AddressFamilyNotSupported"]


def test_the_source_s_problems_are_told_too_and_what_the_node_lacks(tmp_path: Path) -> None:
    sctp = Problem("default/web:s", "ProtocolNotSupported", "port 99/SCTP is not served")
    wanted = msgspec.structs.replace(snapshot(service()), problems=(sctp,))
    found = forecast(config(state_dir=tmp_path), wanted, Surroundings)
    assert [problem.reason for problem in found.problems] == ["ProtocolNotSupported", "NoDefaultRoute"]


def test_host_ports_are_those_that_a_daemon_remembers_and_nothing_is_written(tmp_path: Path) -> None:
    PortFile(tmp_path).write({"default/web": 10777})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (row,) = told(snapshot(service(protocol=Protocol.UDP)), tmp_path).services
    assert row.listener == "10.100.0.2:10777"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
