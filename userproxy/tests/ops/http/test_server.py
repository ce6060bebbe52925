"""The pages, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
import structlog
from aiohttp import web

from userproxy.config import Config
from userproxy.model.address import Address, IpFamily
from userproxy.model.counters import Counters
from userproxy.model.figures import Figures
from userproxy.model.rows import SourceStatus, StatusRow
from userproxy.model.service import Protocol, ServicePort, ServicePortName
from userproxy.model.snapshot import EMPTY, Snapshot
from userproxy.ops.http import server
from userproxy.ops.http.clients import Limits
from userproxy.ops.http.health import Health
from userproxy.ops.http.metrics import Metrics
from userproxy.ops.http.pages import Pages
from userproxy.ops.http.server import application, serve_http
from userproxy.tests.ops.daemon import MadeUpView
from userproxy.tests.services import cluster_ips

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from userproxy.tests.sockets import Sockets

SOURCE = SourceStatus(kind="manifests", synced=True, stale_seconds=0.0)
CONFIG = Config(manifests=Path("/services"))
WEB = ServicePortName("default", "web")
SNAPSHOT = Snapshot({WEB: ServicePort(name=WEB, protocol=Protocol.TCP, entries=cluster_ips())}, {WEB: ()})


class Shown(MadeUpView):
    """What the daemon shows, with these counters."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self.counters = counters
        self.asked = 0

    async def measured(self) -> tuple[Figures, Counters]:
        """What is measured and counted."""
        figures = Figures(
            services=2,
            listeners=1,
            connections=3,
            connections_waiting=2,
            problems={"PortConflict": 1},
            source_synced=True,
        )
        return figures, self.counters

    async def status(self) -> StatusRow:
        """The daemon, and that somebody asked."""
        self.asked += 1
        return self.status_row


class Daemon:
    """What the pages are about.

    Attributes:
        eligible: whether its node is.
        metrics: what it counts.
        pages: of it.
    """

    def __init__(self) -> None:
        self.eligible = True
        self.counters = Counters(connections_ended={"client-closed": 5})
        self.metrics = Metrics("redirect-to-host", self.counters)
        self.view = Shown(self.counters)
        self.pages = Pages(self._health, self.view, self.metrics, CONFIG, ["host1.example"])

    def _health(self) -> Health:
        return Health(now=1e9, last_updated=1e9, pending_seconds=None, eligible=self.eligible, source=SOURCE)


@contextlib.asynccontextmanager
async def served(pages: web.Application, ip: str = "127.0.0.1") -> AsyncIterator[str]:
    """The URL at which pages are served."""
    address = Address(ip, free_port())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serve_http(address, pages, "a-flag", {}))
        await until_listening(address)
        yield f"http://{address}"
        task.cancel()


async def until_listening(address: Address) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(address.ip, address.port)
            writer.close()
            return
        await asyncio.sleep(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.headers["Connection"] == "close"
        return response.status, await response.text()


async def test_probes() -> None:
    daemon = Daemon()
    async with served(daemon.pages.probes()) as url:
        assert (await get(f"{url}/healthz"))[0] == 200
        daemon.eligible = False
        status, body = await get(f"{url}/healthz")
        assert (status, '"healthy":false' in body) == (503, True)
        assert (await get(f"{url}/livez"))[0] == 200
        assert (await get(f"{url}/metrics"))[0] == 404


async def test_the_unspecified_address_of_ipv6_is_every_address_of_either_family() -> None:
    async with served(Daemon().pages.probes(), "::") as url:
        for host in ("127.0.0.1", "[::1]"):
            assert (await get(f"{url.replace('[::]', host)}/livez"))[0] == 200
    async with served(Daemon().pages.probes(), "::1") as url:
        assert (await get(f"{url}/livez"))[0] == 200


async def test_metrics_have_the_names_of_kube_proxy_and_our_own() -> None:
    daemon = Daemon()
    daemon.metrics.changed(EMPTY, SNAPSHOT)
    daemon.metrics.applied(0.003)
    daemon.metrics.probed("healthz", 200)
    async with served(daemon.pages.metrics()) as url:
        status, text = await get(f"{url}/metrics")
        assert await get(f"{url}/proxyMode") == (200, "redirect-to-host")
        assert (
            '"userproxy.dev":{"manifests":"/services","kubeconfig":null,' in (await get(f"{url}/configz"))[1]
        )
        assert (
            "\nexternal-ips=true\nfall-open=true\nhealthz-bind-address=:10256\n"
            in (await get(f"{url}/flagz"))[1]
        )
    assert status == 200
    lines = set(text.splitlines())
    assert lines >= {
        'kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_proxy_rules_service_changes_total{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_proxy_rules_endpoint_changes_total{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_proxy_rules_service_changes_pending{ip_family="IPv4"} 0.0',
        'kubeproxy_proxy_healthz_total{code="200"} 1.0',
        "userproxy_services 2.0",
        "userproxy_connections 3.0",
        "userproxy_connections_waiting 2.0",
        'userproxy_connections_ended_total{reason="client-closed"} 5.0',
        'userproxy_problems{reason="PortConflict"} 1.0',
        "userproxy_source_synced 1.0",
    }


async def test_changes_are_counted_by_what_is_not_the_same_any_more() -> None:
    daemon = Daemon()
    daemon.metrics.changed(SNAPSHOT, Snapshot(dict(SNAPSHOT.services), {WEB: ()}))
    daemon.metrics.changed(SNAPSHOT, EMPTY)
    async with served(daemon.pages.metrics()) as url:
        lines = (await get(f"{url}/metrics"))[1].splitlines()
    assert 'kubeproxy_sync_proxy_rules_service_changes_total{ip_family="IPv4"} 1.0' in lines


async def test_a_node_is_ready_once_it_serves_also_when_it_is_about_to_go() -> None:
    daemon = Daemon()
    for pages in (daemon.pages.probes(), daemon.pages.metrics()):
        daemon.eligible = False
        async with served(pages) as url:
            assert [(await get(f"{url}/{path}"))[0] for path in ("readyz", "livez", "healthz")] == [
                200,
                200,
                503,
            ]


async def test_statusz_is_as_other_components_have_it() -> None:
    async with served(Daemon().pages.metrics()) as url:
        status, text = await get(f"{url}/statusz")
    assert (status, text.splitlines()[0]) == (200, "userproxy statusz")
    assert "\nUp: 1 hr 01 min 40 sec\n" in text
    assert "\nPaths: /metrics /healthz /livez /readyz /statusz /configz /flagz /proxyMode\n" in text


async def test_the_page_and_its_parts_are_ours_alone() -> None:
    async with served(Daemon().pages.metrics()) as url, aiohttp.ClientSession() as session:
        for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
            async with session.get(f"{url}{path}") as response:
                assert (response.status, response.content_type) == (200, kind)
                assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
                assert response.headers["X-Frame-Options"] == "DENY"
                assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:10249"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "localhost:10249"}, 200),
        ({"Host": "[::1]:10249"}, 200),
        ({"Host": "HOST1.example.:10249"}, 200),
        ({"Host": "host1"}, 200),
    ],
)
async def test_who_asks_by_a_name_that_is_not_ours_gets_no_page_but_metrics(
    headers: dict[str, str], status: int
) -> None:
    async with served(Daemon().pages.metrics()) as url, aiohttp.ClientSession(headers=headers) as session:
        for path, expected in (("/", status), ("/statusz", status), ("/metrics", 200), ("/healthz", 200)):
            async with session.get(f"{url}{path}") as response:
                assert response.status == expected


async def test_a_bug_behind_a_page_is_logged_and_costs_only_that_answer() -> None:
    daemon = Daemon()
    with structlog.testing.capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemon.view, "measured", None)
        async with served(daemon.pages.metrics()) as url:
            assert await get(f"{url}/metrics") == (500, "the daemon failed to answer: its log says why\n")
            assert (await get(f"{url}/statusz"))[0] == 200
    assert [(line["event"], line["path"]) for line in logs] == [("a page could not be made", "/metrics")]
    assert logs[0]["exc_info"]


async def test_a_crowd_of_onlookers_has_the_page_made_once() -> None:
    daemon = Daemon()
    async with served(daemon.pages.metrics()) as url:
        pages = await asyncio.gather(*(get(f"{url}/") for _ in range(20)))
    assert len(set(pages)) == 1
    assert daemon.view.asked == 1


async def test_an_address_that_is_taken_is_one_line_and_is_tried_again() -> None:
    with socket.socket() as owner, structlog.testing.capture_logs() as logs:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        address = Address("127.0.0.1", owner.getsockname()[1])
        pauses = 0

        async def sleep(_seconds: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 3:
                owner.close()

        async with asyncio.TaskGroup() as tasks:
            pages = Daemon().pages
            task = tasks.create_task(
                serve_http(address, pages.probes(), "healthz-bind-address", {}, sleep=sleep)
            )
            await until_listening(address)
            assert (await get(f"http://{address}/livez"))[0] == 200
            task.cancel()
    assert [line["event"] for line in logs] == ["cannot listen, and will try again", "listening after all"]
    assert logs[0]["remedy"] == "--healthz-bind-address"


async def test_without_a_free_descriptor_it_is_tried_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    address = Address("127.0.0.1", free_port())
    told: list[str] = []

    def dup(_sock: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def sleep(_seconds: float) -> None:
        monkeypatch.undo()  # one is free again

    monkeypatch.setattr(socket.socket, "dup", dup)
    listeners: dict[str, socket.socket] = {}
    async with asyncio.TaskGroup() as tasks:
        pages = Daemon().pages.probes()
        serving = serve_http(address, pages, "a-flag", listeners, sleep=sleep, report=told.append)
        task = tasks.create_task(serving)
        await until_listening(address)
        assert (await get(f"http://{address}/livez"))[0] == 200
        task.cancel()
    assert told == ["Too many open files", ""]
    listeners["a-flag"].close()


@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez", b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
)
async def test_whoever_says_nothing_or_half_of_it_is_hung_up_on(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_LIMITS", Limits(request_seconds=0.05))
    async with served(Daemon().pages.probes()) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()


async def test_a_crowd_that_says_nothing_keeps_no_probe_out() -> None:
    async with served(Daemon().pages.probes()) as url, contextlib.AsyncExitStack() as crowd:
        host, port = url.removeprefix("http://").split(":")
        for number in range(300):
            _, writer = await asyncio.open_connection(host, int(port))
            crowd.callback(writer.transport.abort)
            if number % 50 == 49:
                assert (await get(f"{url}/healthz"))[0] == 200


@pytest.mark.usefixtures("sockets")
async def test_whoever_connects_while_nobody_serves_is_answered_by_the_next_server() -> None:
    address, listeners = Address("127.0.0.1", free_port()), dict[str, socket.socket]()

    async def serve() -> None:
        await serve_http(address, Daemon().pages.probes(), "a-flag", listeners)

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(serve())
        await until_listening(address)
        first.cancel()
    reader, writer = await asyncio.open_connection(address.ip, address.port)
    writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
    async with asyncio.TaskGroup() as tasks:
        second = tasks.create_task(serve())
        assert (await reader.read()).startswith(b"HTTP/1.0 200 OK")
        second.cancel()
    writer.close()
    await writer.wait_closed()
    listeners.pop("a-flag").close()


async def test_whoever_has_come_before_the_end_is_answered_still() -> None:
    address = Address("127.0.0.1", free_port())
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        asked.set()
        await may_answer.wait()
        return web.Response(text="late")

    serving = asyncio.create_task(serve_http(address, application({"/slow": slow}), "a-flag", {}))
    await until_listening(address)
    one, to_one = await asyncio.open_connection(address.ip, address.port)
    to_one.write(b"GET /slow HTTP/1.0\r\n\r\n")
    await asked.wait()
    other, to_other = await asyncio.open_connection(address.ip, address.port)
    to_other.write(b"GET /slow HTTP/1.0\r\n")
    serving.cancel()
    await asyncio.sleep(0)
    to_other.write(b"\r\n")
    may_answer.set()
    for reader, writer in ((one, to_one), (other, to_other)):
        assert (await reader.read()).endswith(b"late")
        writer.close()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_listener_that_is_there_is_used_and_stays_open(sockets: Sockets) -> None:
    left = socket.create_server(("127.0.0.1", 0))
    sockets.keep(left)
    address = Address(*left.getsockname())
    async with asyncio.TaskGroup() as tasks:
        pages = Daemon().pages
        task = tasks.create_task(serve_http(address, pages.metrics(), "a-flag", {"a-flag": left}))
        assert (await get(f"http://{address}/healthz"))[0] == 200
        task.cancel()
    assert left.fileno() >= 0


async def test_an_address_that_is_taken_leaves_no_listener_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        listeners = dict[str, socket.socket]()

        async def sleep(_seconds: float) -> None:
            raise asyncio.CancelledError

        address = Address(*owner.getsockname())
        with pytest.raises(asyncio.CancelledError):
            await serve_http(address, Daemon().pages.probes(), "a-flag", listeners, sleep=sleep)
        assert listeners == {}


async def test_no_address_means_no_server() -> None:
    await serve_http(None, Daemon().pages.probes(), "a-flag", {})


@pytest.mark.parametrize("path", ["/healthz/", "/", "/metrics/../healthz?x=1%00"])
async def test_anything_else_is_not_found_or_harmless(path: str) -> None:
    async with served(Daemon().pages.probes()) as url:
        assert (await get(url + path))[0] in (200, 404)


def test_a_change_is_timed_from_when_the_cluster_made_it_unless_that_was_before_our_time() -> None:
    counters, now = Counters(), [1000.0]
    metrics = Metrics("redirect-to-host", counters, lambda: ("IPv4", "IPv6"), clock=lambda: now[0])
    old, new = (IpFamily.IPV4, 999.0), (IpFamily.IPV4, 1001.0)
    snapshot = Snapshot({}, {WEB: ()}, triggers=(old, new))
    metrics.changed(None, snapshot)
    metrics.changed(snapshot, Snapshot({}, {WEB: ()}, triggers=snapshot.triggers))  # the node has changed
    now[0] = 1003.5
    metrics.applied(0.01)
    metrics.applied(0.01)
    times = counters.programming_times["IPv4"]
    assert (sum(times.counts), times.total) == (1, 2_500_000_000)
    assert "IPv6" not in counters.programming_times
    assert (
        sum(counters.full_sync_times["IPv6"].counts),
        sum(counters.partial_sync_times["IPv6"].counts),
    ) == (
        1,
        1,
    )


def test_after_a_failure_everything_is_looked_at_again() -> None:
    counters = Counters()
    metrics = Metrics("redirect-to-host", counters)
    for _ in range(2):
        metrics.applied(0.01)
    metrics.failed()
    metrics.applied(0.01)
    assert (
        sum(counters.full_sync_times["IPv4"].counts),
        sum(counters.partial_sync_times["IPv4"].counts),
    ) == (2, 1)
