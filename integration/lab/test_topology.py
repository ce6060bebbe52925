"""The lab's network is the one that the reference deployment tables, before any proxy is in it."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from userproxy.lab.topology import REFERENCE, SERVER1, SERVER2, Pod

if TYPE_CHECKING:
    from userproxy.lab.deployment import Lab

SERVERS = (SERVER1, SERVER2)


@pytest.mark.parametrize(
    ("asker", "server"),
    list(itertools.product(REFERENCE.pods, SERVERS)),
    ids=lambda pod: pod.name if isinstance(pod, Pod) else str(pod),
)
def test_every_pod_reaches_every_pod_and_is_seen_under_its_own_address(
    bare_lab: Lab, asker: Pod, server: Pod
) -> None:
    said = bare_lab.exec(asker.name, "curl", "-sS", "--max-time", "5", f"http://{server.address}/").stdout
    assert said.startswith(f"{server.name} answers {asker.ip}:")


@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("server", SERVERS, ids=lambda pod: pod.name)
def test_every_host_reaches_every_pod(bare_lab: Lab, host: str, server: Pod) -> None:
    said = bare_lab.exec(host, "curl", "-sS", "--max-time", "5", f"http://{server.address}/").stdout
    assert said.startswith(f"{server.name} answers ")


@pytest.mark.parametrize(
    ("member", "destination", "gateway", "device"),
    [
        ("client", "10.0.1.2", None, "eth0"),
        ("client", "10.3.241.152", "10.0.1.1", "eth0"),
        ("host1", "10.0.1.2", None, "cbr0"),
        ("host1", "10.100.0.3", None, "eth0"),
        ("host1", "10.0.2.2", "10.100.0.1", "eth0"),
        ("host2", "10.0.1.3", "10.100.0.1", "eth0"),
        ("gateway", "10.0.1.2", "10.100.0.2", "hosts"),
        ("gateway", "10.0.2.2", "10.100.0.3", "hosts"),
    ],
)
def test_routes_are_as_tabled(
    bare_lab: Lab, member: str, destination: str, gateway: str | None, device: str
) -> None:
    (route,) = json.loads(bare_lab.exec(member, "ip", "-json", "route", "get", destination).stdout)
    assert (route.get("gateway"), route["dev"]) == (gateway, device)


def test_nobody_answers_for_the_service_ip_without_a_proxy(bare_lab: Lab) -> None:
    asked = bare_lab.exec("client", "curl", "-sS", "--max-time", "5", "http://10.3.241.152/", check=False)
    assert asked.returncode != 0
    held = bare_lab.exec("gateway", "ip", "route", "get", "10.3.241.152", check=False)
    assert "unreachable" in held.stderr


def test_the_web_server_sends_and_takes_bodies_whole(bare_lab: Lab) -> None:
    def curl(*argv: str) -> bytes:
        command = bare_lab.command("client", "curl", "-sS", "--max-time", "10", *argv)
        return subprocess.run(command, check=True, capture_output=True, input=body).stdout

    body = b"userproxy" * 100_000
    assert len(curl("http://10.0.2.2:8080/bytes/1000003")) == 1_000_003
    assert curl("--data-binary", "@-", "http://10.0.2.2:8080/echo") == body
    size, digest = curl("--data-binary", "@-", "http://10.0.2.2:8080/upload").decode().split()
    assert (int(size), digest) == (len(body), hashlib.sha256(body).hexdigest())


def test_the_exit_code_and_output_of_a_command_are_passed_on(bare_lab: Lab) -> None:
    done = bare_lab.exec("server1", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
