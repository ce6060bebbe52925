"""`userproxy plan`: what is printed, and when it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from userproxy.cli.main import cli
from userproxy.model.rows import ServiceRow
from userproxy.tests.ops.daemon import MadeUpView, running

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.3.241.152
  ports: [{name: http, port: 80, targetPort: 8080}, {name: s, port: 99, protocol: SCTP}]
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec: {clusterIP: 10.3.241.153, ports: [{port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.1.2]}, {addresses: [10.0.2.2]}]
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    file = tmp_path / "services.yaml"
    file.write_text(MANIFEST)
    return file


def plan(manifests: Path, *arguments: str) -> Result:
    here = ("--manifests", str(manifests), "--state-dir", str(manifests.parent), "--node-name", "host1")
    where = ("--host-ip", "192.0.2.77")  # of another node
    return CliRunner().invoke(cli, ["plan", *here, *where, *arguments], prog_name="userproxy")


def test_what_would_be_served_and_what_not_and_why(manifests: Path) -> None:
    told = plan(manifests)
    assert (told.exit_code, told.stderr) == (0, "")
    table, _, rest = told.stdout.partition("\n\n")
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "SERVICE PROTOCOL PATH POLICY OUTCOME ENTRIES LISTENER BACKENDS REASON",
        (
            "default/web:http TCP redirect-to-host Cluster served 10.3.241.152:80 192.0.2.77:10400 "
            "10.0.1.2:8080,10.0.2.2:8080 -"
        ),
        (
            "shop/empty UDP redirect-to-host Cluster refused 10.3.241.153:53 192.0.2.77:10401 - "
            "it has no endpoints"
        ),
    ]
    assert rest.startswith("2 Service ports on host1 (192.0.2.77")
    assert "): 1 served, 1 refused\n" in rest
    assert "  ProtocolNotSupported: 1\n    default/web:s: port 99/SCTP is not served" in rest


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_programs_get_one_object(manifests: Path, output: str) -> None:
    found = yaml.safe_load(plan(manifests, "-o", output, "--sort-by", "service", "--reverse").stdout)
    assert list(found) == ["node", "host_ips", "services", "problems"]
    assert [row["service"] for row in found["services"]] == ["shop/empty", "default/web:http"]
    assert found["services"][1]["entries"] == ["cluster-ip 10.3.241.152:80"]
    assert found["problems"][0]["about"] == "default/web:s"


def test_the_options_choose(manifests: Path) -> None:
    for arguments in (("-n", "shop"), ("--state", "refused"), ("--service", "shop/empty")):
        found = json.loads(plan(manifests, "-o", "json", *arguments).stdout)
        assert [row["service"] for row in found["services"]] == ["shop/empty"]


@pytest.mark.parametrize("mode", ["redirect-to-host", "redirect-to-pod"])
def test_the_rules_are_told_in_the_words_of_nft(manifests: Path, mode: str) -> None:
    told = plan(manifests, "-o", "nft", "--mode", mode).stdout
    assert told.startswith("table inet userproxy {\n")
    assert told.endswith("}\n")
    assert told.count("{") == told.count("}")
    way = "listeners4" if mode == "redirect-to-host" else "sizes4"
    data = {"listeners4": "192.0.2.77 . 10400", "sizes4": "jump pick-2"}[way]
    assert f"\t\t\t10.3.241.152 . tcp . 80 : {data},\n" in told.partition(f"map {way} {{")[2]


def test_the_difference_to_a_running_daemon_is_told(manifests: Path) -> None:
    same = ServiceRow(
        service="default/web:http",
        protocol="TCP",
        path="redirect-to-host",
        frontends=("10.3.241.152:80",),
        listener="192.0.2.77:10400",
        backends_up=2,
        backends=2,
        connections=0,
        problems=(),
    )
    gone = msgspec.structs.replace(same, service="default/old", listener=None, frontends=("10.3.0.9:1",))
    view = MadeUpView()
    view.service_rows = [same, gone]
    socket = manifests.parent / "s"
    with running(socket, view):
        told = plan(manifests, "--diff", "--admin-socket", str(socket))
        assert (told.exit_code, told.stderr) == (0, "")
        assert told.stdout.splitlines() == [
            "- default/old Cluster IPv4: path redirect-to-host, listener none, at 10.3.0.9:1",
            (
                "+ shop/empty Cluster IPv4: path redirect-to-host, listener 192.0.2.77:10401, "
                "at 10.3.241.153:53"
            ),
        ]
        only = ("--service", "default/web", "--diff", "--admin-socket", str(socket))
        assert plan(manifests, *only).stderr == "nothing would be different\n"
        changed = plan(manifests, *only, "--mode", "redirect-to-pod").stdout
        assert changed == (
            "~ default/web:http Cluster IPv4: path redirect-to-host -> redirect-to-pod; "
            "listener 192.0.2.77:10400 -> none\n"
        )


def test_strict_fails_while_anything_is_not_served(manifests: Path) -> None:
    told = plan(manifests, "--strict")
    assert told.exit_code == 1
    assert told.stderr == (
        "userproxy: not everything would be served: 1 Service port, "
        f"{told.stdout.count(': port 99/SCTP') + told.stdout.count('no default route')} problem"
        f"{'s' if 'no default route' in told.stdout else ''}\n"
    )


def test_a_file_that_cannot_be_taken_is_a_problem_like_others(manifests: Path) -> None:
    manifests.write_text("kind: Service\n")
    told = plan(manifests)
    assert (told.exit_code, told.stderr) == (0, "no Services\n")
    assert "0 Service ports" in told.stdout
    assert f"  BadManifest: 1\n    {manifests}: " in told.stdout


def test_the_same_flags_as_of_run_are_checked_alike(manifests: Path) -> None:
    told = plan(manifests, "--workers", "0", "--hostname-override", "other")
    assert (told.exit_code, told.stdout) == (2, "")
    assert len(told.stderr.splitlines()) == 2


def test_an_api_server_that_does_not_tell_is_told(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    contexts = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
    users = [{"name": "u", "user": {}}]
    content = {"current-context": "c", "contexts": contexts, "clusters": [cluster], "users": users}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **content}))
    arguments = ["plan", "--kubeconfig", str(file), "--host-ip", "192.0.2.77", "--timeout", "0.5"]
    told = CliRunner().invoke(cli, arguments)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith("userproxy: kubernetes: http://127.0.0.1:1 cannot be reached: ")
    assert told.stderr.endswith("nothing was told within 0.5 s\n")


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    told = plan(tmp_path / "nowhere.yaml")
    assert told.exit_code == 1
    assert "no such manifest" in told.stderr
