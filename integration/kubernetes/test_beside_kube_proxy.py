"""userproxy beside a real kube-proxy on one node: who gets the connections is told, and goes by the label."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from integration.kubernetes.source.site import HOST, PATIENCE_SECONDS, Site, reference
from integration.sockets import connect
from userproxy.lab.processes import wait_until
from userproxy.lab.topology import REFERENCE, SERVER_SERVICE
from userproxy.ops.client import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from userproxy.lab.processes import Process

LABEL = "service.kubernetes.io/service-proxy-name"
NAME = "default/server-service"
IP = SERVER_SERVICE.frontend.ip
TABLES = {"iptables": "ip nat", "nftables": "ip kube-proxy"}
BEFORE_OURS = "nat chains of others that are asked before ours"


@pytest.fixture(params=TABLES)
def mode(request: pytest.FixtureRequest) -> str:
    """Of kube-proxy."""
    return str(request.param)


@pytest.fixture
def site(able: None, kubernetes_binaries: Path, mode: str) -> Iterator[Site]:  # noqa: ARG001 - able is a condition
    if not (kubernetes_binaries / "kube-proxy").exists():
        pytest.skip("no kube-proxy: build it with scripts/kubernetes-binaries --with-kube-proxy")
    with Site(f"beside-{mode}-{os.getpid()}", kubernetes_binaries) as made:
        status = {"addresses": [{"type": "InternalIP", "address": REFERENCE.host(HOST).ip}]}
        patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
        made.cluster.kubectl("patch", "node", HOST, *patch)  # kube-proxy waits for it
        yield made


@contextlib.contextmanager
def kube_proxy(site: Site, binaries: Path, mode: str) -> Iterator[Process]:
    """It runs on host1 for the time of the block, and serves; afterwards its rules are gone."""
    command = (str(binaries / "kube-proxy"), "--proxy-mode", mode, "--hostname-override", HOST)
    process = site.lab.start(
        "kube-proxy",
        HOST,
        *command,
        *("--kubeconfig", str(site.cluster.admin_kubeconfig), "--cluster-cidr=10.0.0.0/14"),
        # userproxy has the ports that are the same for both.
        *("--healthz-bind-address=127.0.0.1:10266", "--metrics-bind-address=127.0.0.1:10259"),
        # The namespace may not set what belongs to the whole machine.
        *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
        "--conntrack-tcp-timeout-close-wait=0",
    )
    try:
        wait_until("kube-proxy serves", lambda: "10.3.240.1" in rules(site, mode), PATIENCE_SECONDS)
        yield process
    finally:
        process.stop()
        site.lab.exec(HOST, *command, "--cleanup")


def rules(site: Site, mode: str) -> str:
    """What kube-proxy has put into the kernel."""
    return site.lab.exec(HOST, "nft", "list", "table", *TABLES[mode].split(), check=False).stdout


def problems(site: Site) -> tuple[str, ...]:
    with AdminClient(site.lab.admin_socket(HOST)) as admin:
        return admin.status().problems


def is_ours(site: Site) -> bool:
    """Whether userproxy relays a new connection of the client's, which is answered in any case."""
    with connect(site.lab, "client", SERVER_SERVICE.frontend) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        client = "{}:{}".format(*connection.getsockname())
        return client in {row["client"] for row in site.lab.rows(HOST, "connections")}


def test_a_service_that_both_serve_is_told_of(site: Site, kubernetes_binaries: Path, mode: str) -> None:
    site.cluster.apply(*reference())
    site.start_daemon()
    wait_until("it is served", lambda: bool(site.ask()), PATIENCE_SECONDS)
    assert is_ours(site)
    with kube_proxy(site, kubernetes_binaries, mode):
        wait_until("kube-proxy has it too", lambda: IP in rules(site, mode), PATIENCE_SECONDS)
        wait_until("it is told", lambda: any(NAME in line for line in problems(site)), PATIENCE_SECONDS)
        (line,) = [line for line in problems(site) if NAME in line]
        print(line)
        assert f"{IP}:80/TCP is taken by kube-proxy" in line
        assert TABLES[mode] in line
        assert LABEL in line
        assert 'userproxy_problems{reason="Bypassed"} 2.0' in site.page("/metrics", 10249)[1]
        assert not is_ours(site), "and so it is"
    wait_until("it is over", lambda: not problems(site), PATIENCE_SECONDS)
    assert is_ours(site)
    told = [entry for entry in site.log() if entry.get("reason") == "Bypassed" and entry["about"] == NAME]
    assert [entry["level"] for entry in told] == ["warning", "info"]


def test_a_service_that_kube_proxy_leaves_alone_is_no_trouble(
    site: Site, kubernetes_binaries: Path, mode: str
) -> None:
    service, endpoints = reference()
    for each in (service, endpoints):  # a controller copies a Service's labels to its slices
        each["metadata"].setdefault("labels", {})[LABEL] = "userproxy"
    site.cluster.apply(service, endpoints)
    site.start_daemon("--service-proxy-name", "userproxy")
    wait_until("it is served", lambda: bool(site.ask()), PATIENCE_SECONDS)
    assert is_ours(site)
    with kube_proxy(site, kubernetes_binaries, mode):
        wait_until("its chains are seen", lambda: bool(site.log(BEFORE_OURS)), PATIENCE_SECONDS)
        assert problems(site) == ()
        assert is_ours(site)
        assert IP not in rules(site, mode)
