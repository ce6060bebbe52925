"""The connections that the kernel carries: read from conntrack's answers, and shown as rows."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from userproxy.model.address import Address
from userproxy.model.endpoint import Endpoint
from userproxy.model.filter import ConnectionFilter
from userproxy.model.network import NodeNetwork
from userproxy.model.service import Path, PoolName, Protocol, ServicePort, ServicePortName
from userproxy.model.snapshot import Node, Snapshot
from userproxy.model.state import Frontend, NodeState, ToListener, ToPods
from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack.entry import TRANSLATED, question
from userproxy.netfilter.conntrack.flows import Flow, flow_of
from userproxy.netfilter.conntrack.table import FlowTable, row_of
from userproxy.netfilter.wire.netlink import attribute
from userproxy.planner.context import PlanContext
from userproxy.planner.ports import PortBook
from userproxy.planner.state import Planner
from userproxy.tests.services import cluster_ips

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from userproxy.model.rows import ConnectionRow

CLIENT, VIP, POD = Address("10.0.1.3", 40000), Address("10.3.241.152", 80), Address("10.0.1.2", 8080)
OTHER, LISTENER = Address("10.3.241.153", 80), Address("10.100.0.2", 10400)
TCP_VIP, UDP_VIP = Frontend(Protocol.TCP, VIP), Frontend(Protocol.UDP, VIP)
GUARDS = {Frontend(Protocol.TCP, LISTENER): None}
WEB, DNS = ServicePortName("default", "web", "http"), ServicePortName("default", "dns")
TCP, UDP = 6, 17
DNAT, SEEN_REPLY, ASSURED = 0x20, 0x2, 0x4
TIMEOUTS = {
    "tcp_timeout_established": 432000,
    "tcp_timeout_unacknowledged": 300,
    "udp_timeout": 30,
    "udp_timeout_stream": 120,
}


def number(kind: int, value: int, size: int = 4) -> bytes:
    return attribute(kind, value.to_bytes(size, "big"))


def packed(source: Address, destination: Address, protocol: int) -> bytes:
    ips = attribute(1, socket.inet_aton(source.ip)) + attribute(2, socket.inet_aton(destination.ip))
    ports = number(1, protocol, 1) + number(2, source.port, 2) + number(3, destination.port, 2)
    return attribute(1, ips) + attribute(2, ports)


def entry(
    *more: bytes, protocol: int = TCP, state: int = 3, status: int = DNAT, left: int = 431_990
) -> bytes:
    """An entry as the kernel lists it: a header, then attributes."""
    info = attribute(4, attribute(1, number(1, state, 1))) if protocol == TCP else b""
    return b"".join(
        [
            bytes(4),
            attribute(1, packed(CLIENT, VIP, protocol)),
            attribute(2, packed(POD, CLIENT, protocol)),
            *(number(3, status), number(7, left), number(12, 4711), info, *more),
        ]
    )


def test_a_connection_is_read() -> None:
    assert flow_of(entry(), TIMEOUTS) == Flow(
        id=4711,
        client=CLIENT,
        frontend=Frontend(Protocol.TCP, VIP),
        source=CLIENT,
        backend=POD,
        state="established",
        started=None,
        idle=10,
        bytes_up=0,
        bytes_down=0,
        counted=False,
    )


def test_bytes_and_the_beginning_are_read_where_the_kernel_has_them() -> None:
    up, down = attribute(9, number(2, 1500, 8)), attribute(10, number(2, 70_000, 8))
    flow = flow_of(entry(up, down, attribute(20, number(1, 1_700_000_000_500_000_000, 8))), TIMEOUTS)
    assert flow is not None
    assert (flow.bytes_up, flow.bytes_down, flow.started) == (1500, 70_000, 1_700_000_000.5)
    assert flow.counted


@pytest.mark.parametrize(
    ("state", "shown"),
    [(1, "connecting"), (2, "connecting"), (3, "established"), (4, "half-closed"), (5, "half-closed")],
)
def test_tcp_states(state: int, shown: str) -> None:
    flow = flow_of(entry(state=state), {})
    assert flow is not None
    assert flow.state == shown


@pytest.mark.parametrize("state", [0, 7, 8])
def test_a_tcp_connection_that_is_over_is_left_out(state: int) -> None:
    assert flow_of(entry(state=state), TIMEOUTS) is None


@pytest.mark.parametrize(
    ("status", "left", "shown", "idle"),
    [(0, 29, "unreplied", 1), (SEEN_REPLY, 20, "replied", 10), (SEEN_REPLY | ASSURED, 90, "assured", 30)],
)
def test_udp_states_and_their_timeouts(status: int, left: int, shown: str, idle: int) -> None:
    flow = flow_of(entry(protocol=UDP, status=DNAT | status, left=left), TIMEOUTS)
    assert flow is not None
    assert (flow.state, flow.idle) == (shown, idle)


def test_unacknowledged_data_does_not_make_a_connection_look_idle_for_days() -> None:
    flow = flow_of(entry(left=297), TIMEOUTS)
    assert flow is not None
    assert flow.idle == 3


def test_what_is_not_translated_is_left_out() -> None:
    assert flow_of(entry(status=ASSURED), TIMEOUTS) is None
    assert flow_of(entry(protocol=1), TIMEOUTS) is None


def flow(backend: Address = POD, frontend: Address = VIP, protocol: Protocol = Protocol.TCP) -> Flow:
    return Flow(
        id=1,
        client=CLIENT,
        frontend=Frontend(protocol, frontend),
        source=CLIENT,
        backend=backend,
        state="established",
        started=None,
        idle=0,
        bytes_up=0,
        bytes_down=0,
        counted=False,
    )


class Kernel:
    """Lists flows, and remembers what it was asked for."""

    def __init__(self, *flows: Flow) -> None:
        self.flows = flows
        self.questions: list[set[Frontend]] = []
        self.refusal = ""

    async def read(self, frontends: Collection[Frontend]) -> list[Flow]:
        """The flows, filtered or not: a kernel need not know how to."""
        for each in frontends:
            question(each.protocol, each.address, TRANSLATED)  # it must be possible to ask
        self.questions.append(set(frontends))
        if self.refusal:
            raise NetfilterError(self.refusal)
        return list(self.flows)


class Clock:
    """Stands still unless told."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


OWNERS = {TCP_VIP: PoolName.of(WEB), UDP_VIP: PoolName.of(DNS)}
CARRIED = NodeState(captures=dict.fromkeys(OWNERS, ToPods((POD,))), pools=OWNERS)
RELAYED = NodeState(captures=dict.fromkeys(OWNERS, ToListener(LISTENER)), guards=GUARDS, pools=OWNERS)


def table(kernel: Kernel, *states: NodeState, clock: Clock | None = None) -> FlowTable:
    """That has seen these states applied, one after the other."""
    made = FlowTable(kernel.read, clock or Clock())
    for state in states or (CARRIED,):
        made.observe(state)
    return made


async def rows(made: FlowTable, wanted: ConnectionFilter | None = None) -> list[ConnectionRow]:
    return [row async for chunk in made.rows(wanted or ConnectionFilter()) for row in chunk]


async def test_connections_to_our_frontends_are_shown_with_their_service_port() -> None:
    stranger = flow(frontend=Address("10.3.0.1", 80))
    found = await rows(table(Kernel(flow(), flow(protocol=Protocol.UDP), stranger)))
    assert [(row.service, row.protocol) for row in found] == [
        ("default/web:http", "TCP"),
        ("default/dns", "UDP"),
    ]
    assert (found[0].id, found[0].listener, found[0].path) == ("ct-1", None, "redirect-to-pod")


async def test_what_is_relayed_is_not_shown_a_second_time() -> None:
    made = table(Kernel(flow(backend=LISTENER), flow()), replace(CARRIED, guards=GUARDS))
    assert [row.backend for row in await rows(made)] == [str(POD)]
    await made.count()
    assert (made.live, made.services[WEB], made.backends[WEB, POD]) == (1, 1, 1)


async def test_only_the_wanted_service_is_asked_for() -> None:
    kernel = Kernel(flow(), flow(protocol=Protocol.UDP))
    found = await rows(table(kernel), ConnectionFilter(service=DNS))
    assert kernel.questions == [{Frontend(Protocol.UDP, VIP)}]
    assert [row.service for row in found] == ["default/dns"]
    assert await rows(table(kernel), ConnectionFilter(service=ServicePortName("default", "other"))) == []
    assert len(kernel.questions) == 1
    assert await rows(table(kernel), ConnectionFilter(client="10.9.0.0/16")) == []


async def test_of_a_dual_stack_service_only_what_is_captured_is_asked_for() -> None:
    web = ServicePort(name=WEB, protocol=Protocol.TCP, entries=cluster_ips(Address("fd00::1", 80), VIP))
    snapshot = Snapshot({WEB: web}, {WEB: (Endpoint(address=POD), Endpoint(address=Address("fd00::2", 80)))})
    ports = range(10400, 10410)
    context = PlanContext(Node("host1"), NodeNetwork((LISTENER.ip,)), Path.REDIRECT_TO_POD, ports)
    state, _ = Planner(PortBook(ports)).wanted(snapshot, context, NodeState())
    kernel = Kernel(flow())
    assert len(await rows(table(kernel, state), ConnectionFilter(service=WEB))) == 1
    assert kernel.questions == [{TCP_VIP}]


async def test_the_kernel_is_not_asked_until_a_service_goes_this_path() -> None:
    kernel = Kernel(flow())
    made = table(kernel, RELAYED)
    await made.count()
    assert (await rows(made), kernel.questions) == ([], [])


async def test_a_service_that_went_another_path_still_shows_its_old_connections() -> None:
    made = table(Kernel(flow(), flow(backend=LISTENER)), CARRIED, RELAYED)
    assert [(row.service, row.backend) for row in await rows(made)] == [("default/web:http", str(POD))]


async def test_a_connection_is_relayed_also_when_its_listener_has_closed() -> None:
    made = table(Kernel(flow(backend=LISTENER), flow()), RELAYED, CARRIED)
    assert [row.backend for row in await rows(made)] == [str(POD)]


async def test_counting_costs_the_kernel_at_most_one_question_a_second() -> None:
    kernel, clock = Kernel(flow()), Clock()
    made = table(kernel, clock=clock)
    for _ in range(3):
        await made.count()
    assert len(kernel.questions) == 1
    clock.now += 1
    await made.count()
    assert len(kernel.questions) == 2


async def test_a_kernel_that_cannot_be_asked_is_a_trouble_until_it_can() -> None:
    kernel = Kernel(flow())
    made = table(kernel)
    kernel.refusal = "cannot read: load nf_conntrack_netlink"
    assert (await rows(made), made.error) == ([], kernel.refusal)
    kernel.refusal = ""
    assert (len(await rows(made)), made.error) == (1, "")


def test_without_timestamps_the_age_is_what_is_certain() -> None:
    one = row_of(WEB, replace(flow(), idle=7.0), Path.REDIRECT_TO_POD, Clock.now)
    assert (one.started_at, one.age_seconds, one.idle_seconds) == ("", 7, 7)


def test_with_timestamps_a_connection_is_not_idle_for_longer_than_it_is_old() -> None:
    one = row_of(WEB, replace(flow(), idle=3.0, started=Clock.now - 2.25), Path.REDIRECT_TO_POD, Clock.now)
    assert (one.started_at, one.age_seconds, one.idle_seconds) == (
        "2023-11-14T22:13:17.750+00:00",
        2.25,
        2.25,
    )


@pytest.mark.parametrize(
    ("started", "counted", "unknown"),
    [
        (None, False, ("age_seconds", "bytes_up", "bytes_down")),
        (None, True, ("age_seconds",)),
        (Clock.now - 9, False, ("bytes_up", "bytes_down")),
        (Clock.now - 9, True, ()),
    ],
)
def test_a_row_says_which_figures_nobody_knows(
    started: float | None, counted: bool, unknown: tuple[str, ...]
) -> None:
    one = row_of(WEB, replace(flow(), started=started, counted=counted), Path.REDIRECT_TO_POD, Clock.now)
    assert all(
        (getattr(one, field) is None) == (field in one.unknown) for field in ("bytes_up", "bytes_down")
    )
    assert one.unknown == unknown


async def test_a_drain_waits_for_tcp_connections_alone() -> None:
    assert await table(Kernel(flow(), flow(protocol=Protocol.UDP))).drain(0.0) == 1
    assert await table(Kernel(flow(protocol=Protocol.UDP))).drain(60.0) == 0


async def test_a_drain_can_be_hurried() -> None:
    made = table(Kernel(flow()))
    made.end_drain()
    assert await made.drain(60.0) == 1


async def test_connections_that_were_there_before_a_source_has_spoken_are_waited_for_too() -> None:
    adopted = NodeState(captures=CARRIED.captures)
    assert await table(Kernel(flow(), flow(frontend=OTHER)), adopted).drain(0.0) == 1


async def test_where_no_service_went_this_path_a_drain_asks_nobody() -> None:
    kernel = Kernel(flow())
    assert await table(kernel, RELAYED).drain(60.0) == 0
    assert kernel.questions == []


def session(client: Address = CLIENT, protocol: str = "UDP") -> ConnectionRow:
    """What a worker tells of a UDP client's session."""
    return replace(
        row_of(DNS, flow(), Path.REDIRECT_TO_POD, Clock.now),
        protocol=protocol,
        listener=str(LISTENER),
        client=str(client),
        frontend="",
    )


async def completed(made: FlowTable, *chunks: list[ConnectionRow]) -> list[ConnectionRow]:
    async def relayed() -> AsyncIterator[list[ConnectionRow]]:
        for chunk in chunks:
            yield chunk

    return [row async for chunk in made.completed(relayed()) for row in chunk]


async def test_a_session_s_row_tells_by_which_frontend_its_client_came() -> None:
    kernel = Kernel(flow(backend=LISTENER, protocol=Protocol.UDP))
    found = await completed(table(kernel, RELAYED), [session()], [session(Address("10.0.1.9", 1)), session()])
    assert [row.frontend for row in found] == [str(VIP), "", str(VIP)]
    assert kernel.questions == [{UDP_VIP}], "asked once for a listing"


async def test_the_client_of_a_session_is_the_one_that_the_kernel_knows() -> None:
    moved = replace(flow(backend=LISTENER, protocol=Protocol.UDP), source=Address(CLIENT.ip, 1024))
    (row,) = await completed(table(Kernel(moved), RELAYED), [session(Address(CLIENT.ip, 1024))])
    assert row.client == str(CLIENT)


async def test_for_connections_alone_the_kernel_is_not_asked() -> None:
    kernel = Kernel()
    assert await completed(table(kernel, RELAYED), [session(protocol="TCP")]) == [session(protocol="TCP")]
    assert kernel.questions == []


async def test_sessions_are_listed_also_where_the_kernel_does_not_answer() -> None:
    kernel = Kernel()
    kernel.refusal = "cannot read"
    assert await completed(table(kernel, RELAYED), [session()]) == [session()]
