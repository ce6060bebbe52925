"""The Services of a lab by their names, which a real name server knows that is itself a Service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from integration.lab.names import NAME, OVER, both_answer, dig, who_answers
from userproxy.lab.deployment import Lab
from userproxy.lab.processes import end_all, wait_until
from userproxy.lab.topology import (
    DNS1,
    DNS2,
    KUBE_DNS,
    REFERENCE_WITH_DNS,
    SERVER2,
    SERVER_SERVICE,
    manifests,
)
from userproxy.model.service import Path as Mode

if TYPE_CHECKING:
    from collections.abc import Generator

    from userproxy.lab.topology import Pod, Service


@pytest.fixture(scope="module", params=list(Mode), ids=lambda mode: mode.value)
def lab(able: None, lab_name: str, request: pytest.FixtureRequest) -> Generator[Lab]:  # noqa: ARG001 - able is a condition
    """The reference deployment with cluster DNS, and a daemon on each host."""
    with Lab(f"{lab_name}-names", deployment=REFERENCE_WITH_DNS, mode=request.param) as made:
        yield made


def back(lab: Lab, service: Service, *pods: Pod) -> None:
    """Make these the pods of a Service, and wait until both daemons have them."""
    deployment = msgspec.structs.replace(
        lab.deployment, services=(msgspec.structs.replace(service, backends=pods),)
    )
    ((name, text),) = manifests(deployment).items()
    lab.write_manifest(name, text)
    wanted = {pod.ip for pod in pods}

    def followed() -> bool:
        rows = [row for host in lab.deployment.hosts for row in lab.rows(host.name, "backends")]
        ours = {str(name): set[str]() for name in service.port_names}
        for row in rows:
            if row["service"] in ours and row["state"] != "removed":
                ours[row["service"]].add(row["backend"].split(":")[0])
        return all(found == wanted for found in ours.values())

    wait_until(f"both daemons have the pods of {service}", followed, 10.0)


def test_a_name_is_enough_to_reach_a_service(lab: Lab) -> None:
    for name in ("server-service", "server-service.default", "server-service.default.svc", NAME):
        assert re.match(r"server[12] answers ", lab.exec("client", "curl", "-sS", f"http://{name}").stdout)


def test_every_pod_knows_the_names_and_no_host_does(lab: Lab) -> None:
    for pod in lab.deployment.pods:
        found = lab.exec(pod.name, "getent", "ahostsv4", "server-service").stdout
        assert found.split()[::2][:2] == [SERVER_SERVICE.ip, NAME]
    shown = lab.exec("host1", "cat", "/etc/resolv.conf").stdout
    assert shown == Path("/etc/resolv.conf").read_text()


@OVER
def test_the_records_are_those_of_cluster_dns(lab: Lab, over: str) -> None:
    assert dig(lab, over, NAME) == SERVER_SERVICE.ip
    assert dig(lab, over, "+search", "server-service") == SERVER_SERVICE.ip
    assert dig(lab, over, "-x", SERVER_SERVICE.ip) == f"{NAME}."
    found = dig(lab, over, "SRV", "_dns._udp.kube-dns.kube-system.svc.cluster.local")
    assert found == "0 100 53 kube-dns.kube-system.svc.cluster.local."
    assert dig(lab, over, "TXT", "dns-version.cluster.local") == '"1.1.0"'


@OVER
@pytest.mark.parametrize(
    ("question", "status", "answers"),
    [
        ((NAME, "A"), "NOERROR", 1),
        ((NAME, "AAAA"), "NOERROR", 0),
        (("nobody.default.svc.cluster.local",), "NXDOMAIN", 0),
        (("userproxy.example",), "REFUSED", 0),
    ],
    ids=["address", "other family", "unknown", "foreign"],
)
def test_what_is_not_there_is_said_so(
    lab: Lab, over: str, question: tuple[str, ...], status: str, answers: int
) -> None:
    said = lab.exec("client", "dig", "+tries=1", over, *question).stdout
    assert f"status: {status}," in said
    assert f"ANSWER: {answers}," in said


@OVER
@pytest.mark.parametrize("member", ["client", "dns1", "host1", "host2", "server2"])
def test_everybody_may_ask_and_both_name_servers_answer(lab: Lab, member: str, over: str) -> None:
    assert both_answer(lab, over, f"@{KUBE_DNS.ip}", member=member)


def test_the_same_name_leads_to_other_pods_once_the_service_has_others(lab: Lab) -> None:
    back(lab, SERVER_SERVICE, SERVER2)
    said = {lab.exec("client", "curl", "-sS", "http://server-service").stdout.split()[0] for _ in range(6)}
    assert said == {"server2"}
    back(lab, SERVER_SERVICE, *SERVER_SERVICE.backends)


@OVER
def test_when_a_name_server_leaves_the_other_one_answers(lab: Lab, over: str) -> None:
    back(lab, KUBE_DNS, DNS2)
    end_all([lab.namespace(DNS1.name)], grace=0.0)
    assert [who_answers(lab, over) for _ in range(6)] == ["dns2"] * 6
    assert lab.exec("client", "curl", "-sS", "http://server-service").returncode == 0
    lab.start_server(DNS1)
    lab.wait_for_server(DNS1)
    back(lab, KUBE_DNS, DNS1, DNS2)
    assert both_answer(lab, over)


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_a_load_of_questions_is_answered(lab: Lab, over: str) -> None:
    questions = lab.directory / "questions"
    questions.write_text(
        "".join(f"{name}\n" for name in (f"{NAME} A", f"{NAME} AAAA", "none.cluster.local A"))
    )
    load = ("-s", KUBE_DNS.ip, "-d", str(questions), "-m", over, "-c", "20", "-l", "2", "-t", "5")
    said = lab.exec("client", "dnsperf", *load).stdout
    sent = re.search(r"Queries sent: +(\d+)", said)
    assert sent
    assert int(sent[1]) > 1000
    assert re.search(r"Queries lost: +0 ", said), said
    assert re.search(r"Response codes: +NOERROR \d+ \(66\.\d+%\), NXDOMAIN \d+ \(33\.\d+%\)\n", said), said
