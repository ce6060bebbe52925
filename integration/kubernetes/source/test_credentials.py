"""Whatever is wrong with the way to the API server: one clear line, and exit code 1 or another try."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from integration.kubernetes.source.site import HOST, Site, reference, seconds_until
from userproxy.lab.topology import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TROUBLE = "the API server does not tell"
KUBE_PROXY = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: kube-proxy, namespace: kube-system}}
data:
  config.conf: |-
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    bindAddress: 0.0.0.0
    clientConnection: {{kubeconfig: {kubeconfig}, qps: 0}}
    clusterCIDR: 10.0.0.0/14
    conntrack: {{maxPerCore: 0, min: null, udpTimeout: 10s}}
    logging: {{format: json, verbosity: 0}}
    mode: nftables
    nodePortAddresses: null
"""


@pytest.fixture(autouse=True)
def _stopped(site: Site) -> Iterator[None]:
    """Each scenario starts a daemon of its own."""
    site.daemon.stop()
    site.daemon.log.write_text("")
    yield
    site.daemon.stop()


def variant(site: Site, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The daemon's kubeconfig with a change."""
    config = json.loads(site.kubeconfig.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return path


def cluster_of(config: dict[str, Any]) -> dict[str, Any]:
    """Its only cluster."""
    found: dict[str, Any] = config["clusters"][0]["cluster"]
    return found


def user_of(config: dict[str, Any]) -> dict[str, Any]:
    """Its only user."""
    found: dict[str, Any] = config["users"][0]["user"]
    return found


def without_start(site: Site, kubeconfig: Path) -> str:
    """Start a daemon that cannot; returns the one line that it says."""
    process = site.start_daemon(kubeconfig=kubeconfig, wait=False)
    assert process.wait(15.0) == 1
    (line,) = process.output().splitlines()
    print(line)
    return line


def trouble(site: Site, kubeconfig: Path) -> str:
    """Start a daemon that has to wait; returns the one line of what is wrong with it."""
    process = site.start_daemon(kubeconfig=kubeconfig, wait=False)
    seconds_until(lambda: bool(site.log(TROUBLE)))
    with pytest.raises(AssertionError):
        seconds_until(lambda: len(site.log(TROUBLE)) > 1, 3.0)
    (entry,) = site.log(TROUBLE)
    print(entry["error"])
    assert process.alive
    assert not site.actions(), "nothing is programmed before everything is known"
    assert site.page("/healthz")[0] == 503
    assert site.page("/livez")[0] == 200
    assert "\n" not in entry["error"]
    return str(entry["error"])


def test_a_kubeconfig_that_is_missing(site: Site, tmp_path: Path) -> None:
    assert without_start(site, tmp_path / "none").endswith("/none: No such file or directory")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [\n", "cannot be read: line 2: "),
        ("just words", "must be a mapping with clusters, contexts and users"),
        ("{}", "current-context is missing"),
        ("{current-context: a}", "Expected object with name a"),
        ("{current-context: a, contexts: 7, clusters: [], users: []}", "no usable kubeconfig"),
        ("{current-context: a, contexts: [{name: b, context: {}}]}", "Expected object with name a"),
        ("\x00\x01", "cannot be read"),
    ],
)
def test_a_kubeconfig_that_is_malformed(site: Site, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config").write_text(text)
    line = without_start(site, tmp_path / "config")
    assert said in line
    assert str(tmp_path / "config") in line


def test_an_authority_that_is_no_certificate(site: Site, tmp_path: Path) -> None:
    path = variant(
        site,
        tmp_path / "config",
        lambda config: cluster_of(config).update({"certificate-authority-data": "eA=="}),
    )
    assert "config: cannot be read" in without_start(site, path)


def test_both_sources_are_one_too_many(site: Site) -> None:
    process = site.start_daemon("--manifests", "/tmp", wait=False)  # noqa: S108 - only named
    assert process.wait(15.0) == 2
    assert "leave the other out" in process.last_line()


def test_a_server_that_cannot_be_reached(site: Site, tmp_path: Path) -> None:
    nobody = f"https://{REFERENCE.gateway_ip}:6444"
    path = variant(site, tmp_path / "config", lambda config: cluster_of(config).update(server=nobody))
    assert trouble(site, path) == f"{nobody} cannot be reached: Connection refused"


def test_a_server_that_is_not_trusted(site: Site, tmp_path: Path) -> None:
    path = variant(
        site, tmp_path / "config", lambda config: cluster_of(config).pop("certificate-authority-data")
    )
    assert "is not trusted: self-signed certificate" in trouble(site, path)


def test_a_token_that_is_not_accepted_until_it_is_renewed(site: Site, tmp_path: Path) -> None:
    path = variant(site, tmp_path / "config", lambda config: user_of(config).update(token="expired"))  # noqa: S106 - it opens nothing
    said = trouble(site, path)
    assert said.startswith("https://")
    assert said.endswith(" does not accept the credentials (Unauthorized): renew the token")
    path.write_text(site.kubeconfig.read_text())
    seconds = seconds_until(lambda: bool(site.log("synced")))
    print(f"synced {seconds:.1f} s after the kubeconfig had a good token")


def test_a_plugin_gives_the_token_anew_when_it_has_expired(site: Site, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    plugin = tmp_path / "plugin"
    credential = (
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    )
    plugin.write_text(f"#!/bin/sh\nprintf '{credential}' \"$(cat {token})\"\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    spec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }

    def use_plugin(config: dict[str, Any]) -> None:
        config["users"][0]["user"] = {"exec": spec}

    path = variant(site, tmp_path / "config", use_plugin)
    assert "renew the token" in trouble(site, path)
    token.write_text(user_of(json.loads(site.kubeconfig.read_text()))["token"])
    seconds_until(lambda: bool(site.log("synced")))


def test_a_verb_that_is_forbidden_until_it_is_granted(site: Site) -> None:
    role = ("clusterrole", "userproxy", "--type=json")
    services = "/rules/0/resources"
    site.cluster.kubectl(
        "patch", *role, "--patch", json.dumps([{"op": "replace", "path": services, "value": ["nodes"]}])
    )
    seconds_until(lambda: not site.may("list", "services"))
    try:
        error = trouble(site, site.kubeconfig)
    finally:
        both = [{"op": "replace", "path": services, "value": ["services", "nodes"]}]
        site.cluster.kubectl("patch", *role, "--patch", json.dumps(both))
    assert error.startswith(
        'services is forbidden: User "system:serviceaccount:kube-system:userproxy" cannot'
    )
    assert error.endswith("grant it, as the ClusterRole in scripts/deploy does")
    seconds_until(lambda: bool(site.log("synced")))


def test_a_node_of_another_name_serves_but_is_not_eligible(site: Site) -> None:
    site.cluster.apply(*reference())
    site.start_daemon("--node-name", "nobody")
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    status, body = site.page("/healthz")
    assert (status, '"nodeEligible":false' in body) == (503, True)


def test_kube_proxy_s_configuration_and_flags_start_it_and_plan_tells_what_it_then_serves(
    site: Site, tmp_path: Path
) -> None:
    site.cluster.apply(*reference())
    file = tmp_path / "kube-proxy.yaml"
    file.write_text(KUBE_PROXY.format(kubeconfig=site.kubeconfig))
    state = ("--admin-socket", str(site.lab.admin_socket(HOST)), "--state-dir", str(site.lab.state(HOST)))
    flags = (f"--config={file}", f"--hostname-override={HOST}", "--v=2", "--masquerade-all", *state)
    planned = json.loads(site.lab.exec(HOST, "userproxy", "plan", *flags, "-o", "json").stdout)
    assert {row["service"]: row["outcome"] for row in planned["services"]} == {
        "default/kubernetes:https": "served",
        "default/server-service": "served",
    }
    assert not site.log(), "nobody runs"
    site.lab.start(f"{HOST}-daemon", HOST, "userproxy", "run", *flags)
    seconds_until(site.is_synced)
    seconds_until(lambda: site.answering() == {"server1", "server2"})
    (warning,) = [each["event"] for each in site.log() if "without effect" in each["event"]]
    print(warning)
    assert warning.endswith("without effect here: conntrack.udpTimeout, --masquerade-all")
    told = json.loads(site.page("/configz", 10249)[1])["userproxy.dev"]
    assert (told["node-name"], told["mode"], told["cluster-cidr"]) == (HOST, "redirect-to-pod", "10.0.0.0/14")
    compared = site.lab.exec(HOST, "userproxy", "plan", *flags, "--diff")
    assert (compared.stdout, "nothing would be different" in compared.stderr) == ("", True)
