"""Snapshots are applied: in order, as far as possible, and what failed again until it works."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from userproxy.control.reconcile import ApplyError
from userproxy.model.address import Address
from userproxy.model.service import Path, PoolName, Protocol, ServicePortName
from userproxy.model.snapshot import EMPTY, Problem
from userproxy.model.state import Frontend, NodeState, Refuse, ToListener, ToPods
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.bypass.claims import Taker
from userproxy.tests.control.rig.node import CART, POD1, POD2, POD3, WEB, endpoints, service, snapshot, tcp

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from userproxy.tests.control.rig.node import ControlSide

pytestmark = pytest.mark.usefixtures("quiet")

HOST = "10.100.0.2"


async def test_nothing_is_done_before_a_source_has_spoken(side: ControlSide) -> None:
    adopted = NodeState(captures={tcp("10.3.0.1:80"): Refuse()})
    side.reconciler.adopt(adopted)
    assert await side.again() == []
    assert side.reconciler.actual is adopted


async def test_a_source_that_knows_of_nothing_takes_everything_away(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    assert await side.apply(EMPTY) == ["uncapture 1", "close default/web"]
    assert (side.kernel.captures, side.kernel.guards, side.workers.serves) == ({}, set(), {})


async def test_a_listener_opens_before_packets_are_sent_there_and_closes_after(side: ControlSide) -> None:
    web, cart = service(), service(CART, "10.3.0.2:80")
    assert await side.apply(snapshot(web)) == [
        "serve default/web on 10400",
        "capture 1",
        "forget flows of 1",
    ]
    assert await side.apply(snapshot(cart)) == [
        "serve shop/cart:http on 10401",
        "capture 1, uncapture 1",
        "forget flows of 1",
        "close default/web",
    ]


async def test_new_backends_are_a_matter_of_the_workers_alone(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    assert await side.apply(snapshot(service(), pods=[POD1, POD2, POD3])) == ["serve default/web on 10400"]


async def test_what_is_carried_out_is_not_carried_out_again(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    assert await side.again() == []


async def test_udp_flows_are_forgotten_once_the_kernel_has_their_new_target(side: ControlSide) -> None:
    dns = service(path=Path.REDIRECT_TO_POD, protocol=Protocol.UDP)
    await side.apply(snapshot(dns))
    assert await side.apply(snapshot(dns, pods=[POD1])) == ["capture 1", "forget flows of 1"]
    assert side.kernel.captures[Frontend(Protocol.UDP, Address("10.3.0.1", 80))] == ToPods((POD1,))


async def test_a_kernel_that_refuses_gets_the_change_again(side: ControlSide) -> None:
    side.kernel.errors["apply"] = NetfilterError("the table is gone")
    with pytest.raises(NetfilterError):
        await side.apply(snapshot(service()))
    assert side.reconciler.actual == NodeState()
    side.kernel.errors.clear()
    assert await side.again() == ["serve default/web on 10400", "capture 1", "forget flows of 1"]


async def test_a_listener_is_not_closed_while_the_kernel_may_still_send_packets_there(
    side: ControlSide,
) -> None:
    await side.apply(snapshot(service()))
    side.kernel.errors["apply"] = NetfilterError("busy")
    with pytest.raises(NetfilterError):
        await side.apply(EMPTY)
    assert PoolName.of(WEB) in side.workers.serves


async def test_one_listener_that_cannot_be_opened_is_refused_told_and_tried_again(side: ControlSide) -> None:
    web, cart = service(), service(CART, "10.3.0.2:80")
    side.workers.unopenable[WEB] = errno.EMFILE
    with pytest.raises(ApplyError, match=r"cannot listen for default/web: Too many open files \(1 l"):
        await side.apply(snapshot(web, cart))
    assert side.kernel.captures == {
        tcp("10.3.0.1:80"): Refuse(),
        tcp("10.3.0.2:80"): ToListener(Address(HOST, 10401)),
    }
    assert {guard.address.port for guard in side.kernel.guards} == {10401}
    side.workers.unopenable.clear()
    await side.again()
    assert side.kernel.captures[tcp("10.3.0.1:80")] == ToListener(Address(HOST, 10400))


async def test_a_worker_that_fails_at_new_backends_is_told_again_until_it_has_them(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.workers.lagging.add(WEB)
    for _ in range(2):  # the second time nothing else is new
        with pytest.raises(ApplyError, match="a worker did not take over a change of default/web"):
            assert await side.apply(snapshot(service(), pods=[POD1])) == []
        assert side.journal[-1] == "serve default/web on 10400"
    side.workers.lagging.clear()
    assert await side.again() == ["serve default/web on 10400"]
    assert await side.again() == []


async def test_a_worker_is_not_told_again_of_a_service_that_is_gone(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.workers.lagging.add(WEB)
    with pytest.raises(ApplyError):
        await side.apply(snapshot(service(), pods=[POD1]))
    assert await side.apply(EMPTY) == ["uncapture 1", "close default/web"]
    assert await side.again() == []


async def test_a_worker_that_is_behind_with_one_service_does_not_hold_up_others(side: ControlSide) -> None:
    web, cart = service(), service(CART, "10.3.0.2:80")
    await side.apply(snapshot(web))
    side.workers.lagging.add(WEB)
    with pytest.raises(ApplyError):
        await side.apply(snapshot(web, cart, pods=[POD1]))
    assert tcp("10.3.0.2:80") in side.kernel.captures


async def test_a_drained_pod_is_out_until_that_is_undone_and_others_stay(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.reconciler.drained.add(POD1)
    assert await side.again() == ["serve default/web on 10400"]
    assert [each.address for each in side.workers.serves[PoolName.of(WEB)].backends] == [POD2]
    await side.apply(snapshot(service(), pods=[POD1, POD2, POD3]))
    assert [each.address for each in side.workers.serves[PoolName.of(WEB)].backends] == [POD2, POD3]
    side.reconciler.drained.remove(POD1)
    await side.again()
    assert [each.address for each in side.workers.serves[PoolName.of(WEB)].backends] == [POD1, POD2, POD3]


async def test_with_its_last_pod_drained_a_service_refuses(side: ControlSide) -> None:
    await side.apply(snapshot(service(), pods=[POD1]))
    side.reconciler.drained.add(POD1)
    await side.again()
    assert side.kernel.captures == {tcp("10.3.0.1:80"): Refuse()}
    assert side.problems() == []


async def test_a_drained_address_that_no_backend_has_any_more_is_a_problem(side: ControlSide) -> None:
    await side.apply(snapshot(service()))
    side.reconciler.drained.add(POD1)
    await side.apply(snapshot(service(), pods=[POD2]))
    assert side.problems() == ["10.0.1.2:8080: DrainedBackendGone"]


async def test_a_problem_is_logged_when_it_begins_and_when_it_is_over(side: ControlSide) -> None:
    ipv6 = service(WEB, "[fd00::1]:80")
    with capture_logs() as lines:
        await side.apply(snapshot(ipv6))
        await side.again()
        await side.apply(snapshot(service()))
    told = [(line["about"], line["log_level"], line["reason"]) for line in lines if "about" in line]
    assert told == [
        ("default/web", "warning", "AddressFamilyNotSupported"),
        ("default/web", "info", "AddressFamilyNotSupported"),
    ]


async def test_what_the_source_has_told_itself_is_not_logged_twice(side: ControlSide) -> None:
    problem = Problem("services.yaml", "BadManifest", "services.yaml:3: spec.ports: missing")
    with capture_logs() as lines:
        await side.apply(msgspec.structs.replace(EMPTY, problems=(problem,)))
    assert [line for line in lines if line["log_level"] != "info"] == []
    assert side.problems() == ["services.yaml: BadManifest"]


async def test_whoever_waits_for_the_next_reconcile_hears_of_its_end_however_it_ends(
    side: ControlSide,
) -> None:
    side.reconciler.take(snapshot(service()))
    for error in (None, NetfilterError("busy")):
        waiting = asyncio.ensure_future(side.reconciler.settled())
        await asyncio.sleep(0)
        side.kernel.errors = {"apply": error} if error else {}
        side.reconciler.take(snapshot(service(WEB, "10.3.0.9:80")) if error else snapshot(service()))
        if error:
            with pytest.raises(NetfilterError):
                await side.again()
        else:
            await side.again()
        await waiting


async def test_host_ports_are_written_down_before_packets_are_sent_there(
    side: ControlSide, tmp_path: FilePath
) -> None:
    side.kernel.errors["apply"] = NetfilterError("busy")
    with pytest.raises(NetfilterError):
        await side.apply(snapshot(service()))
    assert (tmp_path / "ports.json").read_bytes() == b'{"default/web":10400}'


async def test_what_an_earlier_daemon_left_is_changed_only_where_it_differs(side: ControlSide) -> None:
    left = ServicePortName("default", "gone")
    await side.apply(snapshot(service(), service(left, "10.3.0.9:80")))
    side.reconciler.adopt(side.reconciler.actual)
    assert await side.apply(snapshot(service())) == ["uncapture 1", "close default/gone"]


async def test_what_others_change_in_the_kernel_is_put_back_and_told_in_one_line(side: ControlSide) -> None:
    side.kernel.changes = ("chain nat-prerouting is gone",)
    with capture_logs() as lines:
        await side.reconciler.repair()
        await side.reconciler.repair()
    assert [line["changes"] for line in lines] == [("chain nat-prerouting is gone",)]


async def test_who_takes_our_connections_is_told_once_and_when_it_is_over(side: ControlSide) -> None:
    with capture_logs() as lines:
        await side.apply(snapshot(service()))
        assert not await side.reconciler.repair()
        side.kernel.bypasses = dict.fromkeys(
            (tcp("10.3.0.1:80"), tcp("10.3.9.9:80")), Taker("ip kube-proxy", "services")
        )
        assert await side.reconciler.repair(), "there is news"
        assert not await side.reconciler.repair(), "and not again"
        for _ in range(2):
            await side.again()
        (problem,) = side.reconciler.problems
        assert (problem.about, problem.reason) == ("default/web", "Bypassed")
        assert "kube-proxy, chain services of table ip kube-proxy" in problem.message
        side.kernel.bypasses = {}
        assert await side.reconciler.repair()
        await side.again()
        assert side.reconciler.problems == frozenset()
    told = [(line["log_level"], line["event"]) for line in lines if line.get("reason") == "Bypassed"]
    assert told == [("warning", problem.message), ("info", "a problem is over")]


async def test_endpoints_without_a_service_are_nobody_s(side: ControlSide) -> None:
    alone = msgspec.structs.replace(snapshot(service()), endpoints={CART: endpoints(POD1)})
    await side.apply(alone)
    assert side.kernel.captures == {tcp("10.3.0.1:80"): Refuse()}


async def test_what_load_balancers_cannot_be_told_is_a_problem(side: ControlSide) -> None:
    services = (service(), service(CART, "10.3.0.2:80"))
    await side.apply(snapshot(*(msgspec.structs.replace(one, health_check_port=32100) for one in services)))
    assert side.problems() == ["shop/cart: PortConflict"]
    await side.apply(snapshot(*services))
    assert side.problems() == []
