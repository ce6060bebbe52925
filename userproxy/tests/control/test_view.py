"""What an operator sees: Services, backends and the daemon itself, joined from all who know of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from userproxy import __version__
from userproxy.control.reconcile import ApplyError
from userproxy.model.address import Address
from userproxy.model.counters import Counters
from userproxy.model.counts import BackendCount
from userproxy.model.filter import ConnectionFilter, RecordFilter
from userproxy.model.records import row_of
from userproxy.model.service import Entry, EntryKind, Path, Protocol, TrafficPolicy
from userproxy.model.snapshot import Problem
from userproxy.tests.control.rig.node import (
    CART,
    POD1,
    POD2,
    SOURCE,
    WEB,
    ControlSide,
    config,
    count,
    counts,
    flow,
    service,
    snapshot,
    totals,
)
from userproxy.tests.ops.daemon import connection
from userproxy.tests.records import RECORD

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from userproxy.tests.sockets import Sockets

pytestmark = pytest.mark.usefixtures("quiet")


async def test_before_a_source_has_spoken_there_is_nothing_to_see(side: ControlSide) -> None:
    assert await side.view.services() == []
    assert await side.view.backends() == []
    assert (await side.view.status()).services == 0


async def test_a_service_is_shown_with_where_it_is_served_and_who_is_behind_it(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.workers.parts = [counts(WEB, count(POD1, 2), count(POD2, 1)), totals(3)]
    (row,) = await side.view.services()
    assert msgspec.structs.asdict(row) == {
        "service": "default/web",
        "protocol": "TCP",
        "path": "redirect-to-host",
        "frontends": ("10.3.0.1:80",),
        "listener": "10.100.0.2:10400",
        "backends_up": 2,
        "backends": 2,
        "connections": 3,
        "problems": (),
        "policy": "Cluster",
        "family": "IPv4",
    }


async def test_a_service_under_two_policies_has_a_row_for_each_and_its_problems_once(
    side: ControlSide,
) -> None:
    entries = (*service().entries, Entry(EntryKind.EXTERNAL_IP, Address("192.0.2.7", 80)))
    both = msgspec.structs.replace(service(), entries=entries, external_traffic_policy=TrafficPolicy.LOCAL)
    told = Problem("default/web", "InvalidAnnotation", "of the Service")
    await side.apply(msgspec.structs.replace(snapshot(both), problems=(told,)))
    anywhere, local = await side.view.services()
    shown = [(row.policy, row.frontends, row.listener, row.backends_up) for row in (anywhere, local)]
    assert shown == [
        ("Cluster", ("10.3.0.1:80", "192.0.2.7:80"), "10.100.0.2:10400", 2),
        ("Local", ("192.0.2.7:80",), "10.100.0.2:10401", 0),
    ]
    assert anywhere.problems
    assert local.problems == ()


async def test_services_are_sorted_by_name_and_backends_by_service(side: ControlSide) -> None:
    await side.apply(snapshot(service(CART, "10.3.0.2:80"), service(), pods=[POD1]))
    assert [row.service for row in await side.view.services()] == ["default/web", "shop/cart:http"]
    assert [row.service for row in await side.view.backends()] == ["default/web", "shop/cart:http"]


async def test_a_backend_is_shown_as_the_source_and_the_workers_know_it(side: ControlSide) -> None:
    await side.apply(snapshot(service(), pods=[POD1]))
    side.clock.now += 60
    seen = BackendCount(
        address=POD1, connections=4, latency=0.0012, state="ejected", reason="dials fail", seconds=5.0
    )
    side.workers.parts = [counts(WEB, seen), totals(4)]
    (row,) = await side.view.backends()
    since = datetime.fromtimestamp(side.clock.now - 5, UTC).isoformat(timespec="seconds")
    assert (row.state, row.reason, row.since) == ("ejected", "dials fail", since)
    assert (row.latency_ms, row.connections, row.node) == (1.2, 4, "host2")


async def test_a_backend_that_workers_find_down_does_not_count_as_up(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.workers.parts = [counts(WEB, count(POD1, 1, "down", seconds=3.0), count(POD2, 0))]
    assert (await side.services())["default/web"].backends_up == 1
    assert await side.backends() == [(str(POD1), "down", 1), (str(POD2), "up", 0)]


async def test_a_judgement_is_not_older_than_what_it_is_about(side: ControlSide) -> None:
    await side.apply(snapshot(service(), pods=[POD1]))
    came = side.clock.now
    side.clock.now += 10
    side.workers.parts = [counts(WEB, count(POD1, 0, "down", seconds=3600.0))]
    (row,) = await side.rows()
    assert row.since == datetime.fromtimestamp(came, UTC).isoformat(timespec="seconds")


async def test_a_drained_or_terminating_backend_is_shown_so_whatever_workers_think(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.reconciler.drained.add(POD1)
    await side.again()
    side.workers.parts = [counts(WEB, count(POD1, 1, "down", seconds=1.0))]
    (row, _) = await side.rows()
    assert (row.state, row.reason) == ("draining", "drained by an operator")


async def test_on_a_node_of_one_family_pods_of_the_other_are_no_backends_and_say_so(
    side: ControlSide,
) -> None:
    ipv6 = Address("fd00::2", 8080)
    await side.apply(snapshot(service(WEB, "10.3.0.1:80", "[fd00::1]:80"), pods=[POD1, ipv6]))
    (row,) = await side.view.services()
    assert (row.family, row.backends_up, row.backends, row.problems) == ("IPv4", 1, 1, ())
    assert [(each.backend, each.state, each.reason) for each in await side.view.backends()] == [
        (str(POD1), "up", ""),
        (str(ipv6), "unused", "this node has no IPv6 address"),
    ]


async def test_a_service_of_a_family_that_the_node_lacks_says_that_it_is_not_served(
    side: ControlSide,
) -> None:
    await side.apply(snapshot(service(WEB, "[fd00::1]:80"), pods=[POD1, Address("fd00::2", 8080)]))
    row = (await side.services())["default/web"]
    assert (row.family, row.listener, row.backends_up, row.backends) == ("IPv6", None, 0, 1)
    (problem,) = row.problems
    assert problem.startswith("[fd00::1]:80 is not served, as this node has no IPv6 address: ")
    assert [each.reason for each in await side.view.backends()] == [
        "the Service has no IPv4 address",
        "this node has no IPv6 address",
    ]


async def test_a_service_of_two_families_has_a_row_for_each(tmp_path: FilePath, sockets: Sockets) -> None:
    side = ControlSide(tmp_path, sockets, config(host_ip="10.100.0.2,fd00::2"))
    pods = [POD1, Address("fd00::12", 8080), Address("fd00::13", 8080)]
    await side.apply(snapshot(service(WEB, "10.3.0.1:80", "[fd00::1]:80"), pods=pods))
    rows = await side.view.services()
    assert [(row.family, row.frontends, row.listener, row.backends_up, row.backends) for row in rows] == [
        ("IPv4", ("10.3.0.1:80",), "10.100.0.2:10400", 1, 1),
        ("IPv6", ("[fd00::1]:80",), "[fd00::2]:10401", 2, 2),
    ]
    assert [row.state for row in await side.view.backends()] == ["up", "up", "up"]
    assert not side.problems()


async def test_connections_on_both_paths_add_up(side: ControlSide) -> None:
    to_pod = service(path=Path.REDIRECT_TO_POD)
    await side.apply(snapshot(to_pod))
    side.flows = [flow("10.3.0.1:80", POD1), flow("10.3.0.1:80", POD1, 2)]
    # One was relayed before the Service changed its path.
    side.workers.parts = [counts(WEB, count(POD1, 1, "removed")), totals(1)]
    assert (await side.services())["default/web"].connections == 3
    assert await side.backends() == [(str(POD1), "up", 3), (str(POD2), "up", 0)]
    assert (await side.view.status()).connections == 3


async def test_the_connections_of_both_paths_are_listed(side: ControlSide) -> None:
    await side.apply(snapshot(service(path=Path.REDIRECT_TO_POD)))
    side.workers.rows = [connection(1)]
    side.flows = [flow("10.3.0.1:80", POD1, 7)]
    listed = [row.id async for chunk in side.view.connections(ConnectionFilter()) for row in chunk]
    assert listed == ["1", "ct-7"]


async def test_a_problem_stands_with_its_service_port_or_with_its_whole_service(side: ControlSide) -> None:
    cart = service(CART, "10.3.0.2:80")
    told = (
        Problem("shop/cart", "InvalidAnnotation", "of the Service"),
        Problem("shop/cart:http", "PortConflict", "of the port"),
    )
    await side.apply(msgspec.structs.replace(snapshot(service(), cart), problems=told))
    rows = await side.services()
    assert rows["shop/cart:http"].problems == ("of the port", "of the Service")
    assert rows["default/web"].problems == ()
    assert (await side.view.status()).problems == ("shop/cart: of the Service", "shop/cart:http: of the port")


async def test_a_udp_service_has_a_listener_as_one_of_tcp(side: ControlSide) -> None:
    await side.apply(snapshot(service(protocol=Protocol.UDP)))
    row = (await side.services())["default/web"]
    assert (row.protocol, row.listener, row.problems) == ("UDP", "10.100.0.2:10400", ())


async def test_status_is_about_the_daemon(side: ControlSide) -> None:
    await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    side.workers.parts = [totals(5), totals(2)]
    side.view.report("not everything could be applied: busy")
    row = await side.view.status()
    assert (row.version, row.pid, row.node, row.mode) == (
        __version__,
        os.getpid(),
        "host1",
        "redirect-to-host",
    )
    assert (row.services, row.listeners, row.connections, row.source) == (2, 2, 7, SOURCE)
    assert row.problems == ("not everything could be applied: busy",)
    side.view.report("")
    assert (await side.view.status()).problems == ()


async def test_the_problems_of_single_objects_do_not_make_the_daemon_fail(side: ControlSide) -> None:
    bad = Problem("default/web", "BadObject", "Service spec.ports: is empty")
    await side.apply(msgspec.structs.replace(snapshot(service()), problems=(bad,)))
    row = await side.view.status()
    assert (row.problems, row.failing) == ((str(bad),), False)


async def test_its_own_problem_and_that_of_its_source_come_first_and_once(side: ControlSide) -> None:
    bad = Problem("default/web", "BadObject", "Service spec.ports: is empty")
    away = Problem("kubernetes", "ApiServerUnavailable", "https://api cannot be reached")
    await side.apply(msgspec.structs.replace(snapshot(service()), problems=(bad, away)))
    side.source = msgspec.structs.replace(SOURCE, problem=str(away))
    side.view.report("not everything could be applied: busy")
    row = await side.view.status()
    assert row.problems == ("not everything could be applied: busy", str(away), str(bad))
    assert row.failing


async def test_a_source_that_cannot_be_followed_is_told_before_it_has_spoken(side: ControlSide) -> None:
    side.source = msgspec.structs.replace(SOURCE, synced=False, problem="kubernetes: cannot be reached")
    row = await side.view.status()
    assert (row.problems, row.failing) == (("kubernetes: cannot be reached",), True)


async def test_the_view_follows_a_reconcile_that_fails_in_part(side: ControlSide) -> None:
    side.workers.unopenable = {WEB: 24}
    with pytest.raises(ApplyError):
        await side.apply(snapshot(service(), service(CART, "10.3.0.2:80")))
    rows = await side.services()
    assert rows["default/web"].listener is None
    assert rows["shop/cart:http"].listener is not None


async def test_metrics_count_what_all_processes_have_counted_those_that_are_gone_too(
    side: ControlSide,
) -> None:
    side.counters.sync_failures = 1
    side.workers.past = Counters(connections_opened=100, connections_ended={"client-closed": 90})
    side.workers.living = {
        7: Counters(connections_opened=20, connections_ended={"client-closed": 5, "killed": 1}),
        8: Counters(connections_opened=3),
    }
    side.sides.pod_health.counters.health_checks["passed"] += 4
    counters = (await side.view.measured()).counters
    assert (counters.connections_opened, counters.sync_failures) == (123, 1)
    assert counters.connections_ended == {"client-closed": 95, "killed": 1}
    assert counters.health_checks == {"passed": 4}


async def test_metrics_do_not_run_backwards_when_a_worker_dies(side: ControlSide) -> None:
    side.workers.living = {7: Counters(connections_opened=20, failed_dials={"refused": 2})}
    before = (await side.view.measured()).counters
    side.workers.past.merge(side.workers.living.pop(7))
    side.workers.living = {9: Counters()}
    assert (await side.view.measured()).counters == before


async def test_nor_when_a_steering_process_dies(side: ControlSide) -> None:
    side.crew.living_counters = {7: Counters(failed_dials={"refused": 2})}
    before = (await side.view.measured()).counters
    side.crew.past_counters.merge(side.crew.living_counters.pop(7))
    assert (await side.view.measured()).counters == before
    assert before.failed_dials == {"refused": 2}


async def test_records_are_those_of_workers_and_of_the_steering_process(side: ControlSide) -> None:
    relayed = row_of(RECORD)
    steered = msgspec.structs.replace(relayed, id="ct-7", path="steered")
    side.workers.recollection.rows, side.crew.recollection.rows = [relayed], [steered]
    found = [row async for chunk in side.view.records(RecordFilter()) for row in chunk]
    assert found == [relayed, steered]


async def test_metrics_have_the_number_of_problems_by_reason(side: ControlSide) -> None:
    await side.apply(snapshot(service(WEB, "[fd00::1]:80", "[fd00::2]:80")))
    figures = (await side.view.measured()).figures
    assert (figures.problems, figures.services, figures.listeners) == ({"AddressFamilyNotSupported": 1}, 1, 0)
