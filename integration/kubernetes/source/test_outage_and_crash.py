"""The API server is gone, and the daemon dies and starts meanwhile: the pods that are known are reached."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from integration.kubernetes.source.site import HOST, seconds_until
from integration.load.load import Load, server
from integration.load.report import timeline
from userproxy.lab.objects import Port, endpoint, endpoint_slice, service
from userproxy.lab.processes import end_all
from userproxy.lab.topology import SERVER_SERVICE
from userproxy.model.address import Address
from userproxy.model.heartbeat import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from integration.kubernetes.source.site import Site

FRONTEND = Address("10.3.241.160", 80)
PORTS = [Port(FRONTEND.port, 7000)]
HELD, TRANSFERS = 50, 2


def enter(site: Site, member: str) -> list[str]:
    return ["ip", "netns", "exec", site.lab.namespace(member)]


def test_whoever_comes_is_served_without_an_api_server_and_over_a_crash(site: Site) -> None:
    pods = SERVER_SERVICE.backends
    site.cluster.apply(
        service("storm", [FRONTEND.ip], PORTS),
        endpoint_slice("storm-1", "storm", PORTS, [endpoint(pod.ip) for pod in pods]),
    )
    seconds_until(lambda: "default/storm" in site.served())
    with contextlib.ExitStack() as stack:
        for pod in pods:
            stack.enter_context(server(enter(site, pod.name), pod.name, PORTS[0].target))
        load = Load(enter(site, "client"), FRONTEND, rate=200, held=HELD, transfers=TRANSFERS)
        with load as running:
            running.settle(HELD + TRANSFERS, connections=200)
            site.cluster.kill_apiserver()
            away = time.monotonic()
            running.go_on(400)
            site.daemon.kill()
            site.start_daemon(wait=False)
            running.go_on(600)
            killed = time.monotonic()
            site.daemon.kill()  # first, lest it replaces its workers
            end_all([site.lab.namespace(HOST)], grace=0.0)
            site.start_daemon(wait=False)
            running.go_on(1000)
            site.cluster.start_apiserver()
            seconds_until(site.is_synced, 60.0)
            running.go_on(400)
            report = running.finish()
    due = killed + TIMEOUT_SECONDS
    print(
        f"no API server, kill -9 of the daemon, and of all: {report}\n"
        f"  before all are killed: {timeline(report.failed(0, killed - 1), away)}\n"
        f"  within {TIMEOUT_SECONDS} s: {timeline(report.failed(killed - 1, due), killed)}\n"
        f"  from then on: {timeline(report.failed(due), killed)}"
    )
    assert report.failed(0, killed - 0.1) == []
    assert report.failed(due) == []
    assert min(each.at for each in report.cuts) >= killed
    assert {each.kind for each in report.cuts} == {"reset"}
