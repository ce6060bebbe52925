"""What the peers are told, and in which order everything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from userproxy.bench.mixture import MAX_SERVICES, mixture, public_newcomer
from userproxy.bench.paths import registry
from userproxy.bench.paths.kernel import rules
from userproxy.bench.paths.relays import haproxy_config, nginx_config, redirect
from userproxy.bench.report.plots import COLOURS
from userproxy.bench.services import (
    DNS,
    HOST,
    HTTP,
    MEASURED,
    QUESTION,
    addresses_of,
    api_service,
    fillers,
    manifest,
    name_servers,
    named,
    newcomer,
)
from userproxy.bench.session import Step, schedule
from userproxy.bench.workloads import registry as workloads
from userproxy.bench.workloads.base import Settings
from userproxy.lab.pods import nameserver
from userproxy.model.service import EntryKind
from userproxy.tests.sources.objects import decoded_service

if TYPE_CHECKING:
    from userproxy.bench.paths.base import Path as BenchPath

RULES = """\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SEP-C - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.3.241.152/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-B
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.0.1.2:8080
-A KUBE-SVC-A -j KUBE-SEP-C
-A KUBE-SEP-C -p tcp -m tcp -j DNAT --to-destination 10.0.1.4:8080
COMMIT
"""


def test_every_relay_has_both_pods_and_one_listener_a_service() -> None:
    for text in (haproxy_config(MEASURED), nginx_config(MEASURED, "/d")):
        assert text.count("10.0.1.2:8080") == text.count("10.0.1.4:8080") == 1
        assert text.count("10.100.0.2:10400 ") == text.count("10.100.0.2:10401 ") == 1
    assert "nbthread 1\n" in haproxy_config(MEASURED)
    assert "listen 10.100.0.2:10402 udp;" in nginx_config(MEASURED, "/d")
    assert "worker_processes 1;" in nginx_config(MEASURED, "/d")


def test_the_rules_lead_each_service_to_its_listener() -> None:
    text = redirect(MEASURED)
    assert "10.3.241.152 . tcp . 80 : 10.100.0.2 . 10400" in text
    assert "10.3.241.153 . tcp . 5201 : 10.100.0.2 . 10401" in text
    assert "10.3.241.154 . udp . 53 : 10.100.0.2 . 10402" in text


def test_the_rules_in_place_of_kube_proxy_have_its_shape() -> None:
    text = rules([HTTP])
    for number, kind in (("A", "SVC"), ("B", "SEP"), ("C", "SEP")):
        name = next(word for word in text.split() if word.startswith(f":KUBE-{kind}-") and len(word) > 20)
        text = text.replace(name[1:], f"KUBE-{kind}-{number}")
    assert text == RULES


def test_a_udp_service_has_rules_of_its_protocol() -> None:
    text = rules([DNS])
    assert "-d 10.3.241.154/32 -p udp -m udp --dport 53 -j KUBE-SVC-" in text
    assert "-p udp -m udp -j DNAT --to-destination 10.0.1.2:53" in text


def test_the_name_servers_know_the_one_name_that_is_asked_for() -> None:
    files = nameserver.files(named(), name_servers(), Path("/d"))
    assert f"{QUESTION}. A 10.3.241.152\n" in files["cluster.local.zone"]
    assert "ip-address: 10.0.1.2@53\n" in files["server1.conf"]
    assert "ip-address: 10.0.1.4@53\n" in files["server2.conf"]


def test_no_two_services_share_an_address() -> None:
    services = [*MEASURED, *fillers(9_999), *map(newcomer, range(200))]
    assert len({service.frontend.ip for service in services}) == len(services)
    assert all(service.frontend.ip.startswith("10.3.") for service in services)


def test_more_services_than_addresses_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fillers(60_000)


def test_a_manifest_has_a_service_and_its_slice_for_each() -> None:
    documents = [json.loads(text) for text in manifest(MEASURED).split("---\n")]
    assert [each["kind"] for each in documents] == ["Service", "EndpointSlice"] * 4
    assert documents[1]["metadata"]["labels"]["kubernetes.io/service-name"] == "bench-http"


def test_a_round_has_every_workload_once_before_the_next_begins() -> None:
    chosen = [each for name, each in workloads.workloads().items() if name in ("r1", "new", "scale")]
    steps = schedule(chosen, Settings(rounds=2, sizes=(1, 100)))
    assert [(step.workload.name, step.round, step.size) for step in steps] == [
        *(("r1", 0, 0), ("new", 0, 0), ("r1", 1, 0), ("new", 1, 0)),
        *(("scale", 0, 1), ("scale", 1, 100)),
    ]


def test_no_path_always_comes_after_the_same_other_one() -> None:
    live = cast("list[BenchPath]", ["a", "b", "c"])
    workload = workloads.workloads()["r1"]
    orders = ["".join(cast("list[str]", Step(workload, 0, each).order(live))) for each in range(30)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) == 6
    assert Step(workload, 0, 0).order(live) == Step(workload, 0, 0).order(live), "a run can be repeated"


def test_every_path_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(registry.NAMES)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_services_of_every_kind_share_no_address_and_are_what_a_source_understands() -> None:
    made = [*mixture(MAX_SERVICES), *map(public_newcomer, range(10))]
    addresses = addresses_of(made)
    assert len(addresses) == len(set(addresses)) == 16_020
    health_ports = {service.spec.get("healthCheckNodePort", 0) for service in made}
    assert not health_ports & {service.node_port for service in made if service.node_port}
    for service in made[:10]:
        decoded = decoded_service(api_service(service))
        assert decoded.problems == ()
        told = {entry.address for entry in decoded.ports[0].entries if entry.kind is not EntryKind.NODE_PORT}
        assert told == {address for address in service.addresses if address.ip != HOST.ip}
    with pytest.raises(ValueError, match="at most 10000"):
        mixture(MAX_SERVICES + 1)
