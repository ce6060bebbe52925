"""kube-proxy's configuration: what means something here, what does not, and what is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from userproxy.config import Reading, read
from userproxy.config.kube_proxy import FIELDS
from userproxy.config.kube_proxy.meanings import seconds

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

KUBEADM = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |-
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    bindAddress: 0.0.0.0
    bindAddressHardFail: false
    clientConnection:
      acceptContentTypes: ""
      burst: 0
      contentType: ""
      kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
      qps: 0
    clusterCIDR: 10.244.0.0/16,fd00:244::/56
    configSyncPeriod: 0s
    conntrack:
      maxPerCore: null
      min: null
      tcpBeLiberal: false
      tcpCloseWaitTimeout: null
      tcpEstablishedTimeout: null
      udpStreamTimeout: 0s
      udpTimeout: 0s
    detectLocal:
      bridgeInterface: ""
      interfaceNamePrefix: ""
    detectLocalMode: ""
    enableProfiling: false
    featureGates: {}
    healthzBindAddress: ""
    hostnameOverride: ""
    iptables:
      localhostNodePorts: null
      masqueradeAll: false
      masqueradeBit: null
      minSyncPeriod: 0s
      syncPeriod: 0s
    ipvs:
      excludeCIDRs: null
      minSyncPeriod: 0s
      scheduler: ""
      strictARP: false
      syncPeriod: 0s
      tcpFinTimeout: 0s
      tcpTimeout: 0s
      udpTimeout: 0s
    kind: KubeProxyConfiguration
    logging:
      flushFrequency: 0
      options:
        json:
          infoBufferSize: "0"
        text:
          infoBufferSize: "0"
      verbosity: 0
    metricsBindAddress: ""
    mode: ""
    nftables:
      masqueradeAll: false
      masqueradeBit: null
      minSyncPeriod: 0s
      syncPeriod: 0s
    nodePortAddresses: null
    oomScoreAdj: null
    portRange: ""
    showHiddenMetricsForVersion: ""
    winkernel:
      enableDSR: false
      forwardHealthCheckVip: false
      networkName: ""
      rootHnsEndpointName: ""
      sourceVip: ""
  kubeconfig.conf: |-
    kind: Config
"""
"""As kubeadm leaves it, without a word changed."""


def reading(tmp_path: Path, content: str, **flags: Any) -> Reading:  # noqa: ANN401 - of many types
    file = tmp_path / "config.conf"
    file.write_text(content)
    return read(flags, file)


def test_the_config_map_of_kubeadm_is_taken_as_it_is(tmp_path: Path) -> None:
    found = reading(tmp_path, KUBEADM)
    assert (found.mistakes, found.warnings) == ((), ())
    assert str(found.settings.kubeconfig) == "/var/lib/kube-proxy/kubeconfig.conf"
    assert found.settings.cluster_cidr == "10.244.0.0/16,fd00:244::/56"
    assert {name: value.origin for name, value in found.chosen.items()} == {
        "kubeconfig": f"{tmp_path}/config.conf:13:7",
        "cluster_cidr": f"{tmp_path}/config.conf:15:5",
    }


def test_what_kube_proxy_writes_down_as_its_defaults_needs_no_warning(tmp_path: Path) -> None:
    found = reading(
        tmp_path,
        HEAD
        + """
bindAddress: 0.0.0.0
clientConnection: {contentType: application/vnd.kubernetes.protobuf, qps: 5, burst: 10}
configSyncPeriod: 15m0s
conntrack: {maxPerCore: 32768, min: 131072, tcpCloseWaitTimeout: 1h0m0s, tcpEstablishedTimeout: 24h0m0s}
detectLocalMode: ClusterCIDR
iptables: {localhostNodePorts: true, masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
ipvs: {minSyncPeriod: 1s, syncPeriod: 30s}
nftables: {masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
logging: {flushFrequency: 5s, format: text}
oomScoreAdj: -999
udpIdleTimeout: 250ms
""",
    )
    assert (found.mistakes, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        ("hostnameOverride: ' Node-1 '", "node_name", "node-1"),
        ("bindAddress: 127.0.0.1", "host_ip", "127.0.0.1"),
        ("bindAddress: '::'", "host_ip", ""),
        ("clusterCIDR: 10.0.0.0/14", "cluster_cidr", "10.0.0.0/14"),
        ("clusterCIDR: 10.0.0.0/14\ndetectLocalMode: NodeCIDR", "cluster_cidr", ""),
        ("nodePortAddresses: [10.0.0.0/8, fd00::/8]", "nodeport_addresses", "10.0.0.0/8,fd00::/8"),
        ("nodePortAddresses: [primary]", "nodeport_addresses", "primary"),
        ("nodePortAddresses: [primary, localhost]", "nodeport_addresses", "primary,localhost"),
        ("nodePortAddresses: [all]", "nodeport_addresses", "all"),
        ("nodePortAddresses: []", "nodeport_addresses", "primary"),
        ("healthzBindAddress: 0.0.0.0:9000", "healthz_bind_address", ":9000"),
        ("healthzBindAddress: '[::]:9000'", "healthz_bind_address", ":9000"),
        ("healthzBindAddress: 0.0.0.0", "healthz_bind_address", ":10256"),
        ("healthzBindAddress: '::1'", "healthz_bind_address", "[::1]:10256"),
        ("metricsBindAddress: 127.0.0.2", "metrics_bind_address", "127.0.0.2:10249"),
        ("metricsBindAddress: 127.0.0.2:80", "metrics_bind_address", "127.0.0.2:80"),
        ("mode: userspace", "mode", "redirect-to-host"),
        ("mode: iptables", "mode", "redirect-to-pod"),
        ("mode: ipvs", "mode", "redirect-to-pod"),
        ("mode: nftables", "mode", "redirect-to-pod"),
        ("mode: redirect-to-pod", "mode", "redirect-to-pod"),
        ("portRange: 20000-20999", "port_range", "20000-20999"),
        ("portRange: 20000+9", "port_range", "20000-20009"),
        ("portRange: '20000'", "port_range", "20000-20000"),
        ("portRange: 0-0", "port_range", "10400-18399"),
        ("udpIdleTimeout: 1m30s", "udp_idle_seconds", 90.0),
        ("logging: {format: json}", "log_format", "json"),
        ("logging: {verbosity: 2}", "log_level", "info"),
        ("logging: {verbosity: 4}", "log_level", "debug"),
    ],
)
def test_what_means_something_here_is_used(tmp_path: Path, content: str, field: str, value: object) -> None:
    found = reading(tmp_path, HEAD + content)
    assert (found.mistakes, found.warnings) == ((), ())
    assert getattr(found.settings, field) == value


def test_what_means_nothing_here_is_named_in_one_warning(tmp_path: Path) -> None:
    content = """
iptables: {masqueradeAll: true, localhostNodePorts: false}
conntrack: {min: 0, udpTimeout: 10s, udpTimeouts: 3s}
detectLocalMode: BridgeInterface
featureGates: {NFTablesProxyMode: true}
udpIdleTimeout: 500ms
"""
    (warning,) = reading(tmp_path, HEAD + content).warnings
    assert warning == (
        "set for kube-proxy, and without effect here: iptables.masqueradeAll, iptables.localhostNodePorts, "
        f"conntrack.udpTimeout, conntrack.udpTimeouts ({tmp_path}/config.conf:5:38: kube-proxy has no such "
        "setting: did you mean conntrack.udpTimeout?), detectLocalMode, featureGates, udpIdleTimeout"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("mode: iptable", ":3:1: mode: 'iptable' is none of kube-proxy's modes on Linux: userspace, ipt"),
        ("mode: 3", ":3:1: mode: 3 is not text: put it in quotes"),
        ("clusterCIDR: 10.0.0.0/99", ":3:1: clusterCIDR: '10.0.0.0/99' is not a network"),
        ("nodePortAddresses: 3", "nodePortAddresses: 3 is not a list of texts"),
        ("nodePortAddresses: [primary, 10.0.0.0/8]", "name either `primary` or networks, not both"),
        ("healthzBindAddress: everywhere", "healthzBindAddress: 'everywhere' is not IP:PORT"),
        ("portRange: some", "portRange: 'some' is not FIRST-LAST"),
        ("udpIdleTimeout: 3 days", "udpIdleTimeout: '3 days' is not a duration such as 30s or 5m"),
        ("logging: {verbosity: loud}", ":3:11: logging.verbosity: 'loud' is not a whole number"),
        ("logging: {format: xml}", ":3:11: logging.format: 'xml' is none of json, console"),
        ("conntrack: 3", ":3:1: conntrack: 3 is not a mapping"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_path_and_place(
    tmp_path: Path, content: str, words: str
) -> None:
    (mistake,) = reading(tmp_path, HEAD + content).mistakes
    assert words in str(mistake)


@pytest.mark.parametrize(
    "head",
    [
        "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration",
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration",
        "kind: KubeProxyConfiguration",
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, head: str) -> None:
    (mistake,) = reading(tmp_path, head).mistakes
    assert "is not understood: only KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1 is" in str(
        mistake
    )


def test_flags_mean_what_the_file_means() -> None:
    flags = {
        "hostname-override": "Node-1",
        "proxy-mode": "iptables",
        "v": "5",
        "masquerade-all": "true",
        "iptables-sync-period": "30s",
        "conntrack-min": "0",
        "oom-score-adj": "-998",
        "cleanup": "false",
    }
    found = read({}, None, flags)
    assert found.mistakes == ()
    assert found.warnings == (
        "set for kube-proxy, and without effect here: --masquerade-all, --oom-score-adj",
    )
    assert {name: value.origin for name, value in found.chosen.items()} == {
        "node_name": "--hostname-override",
        "mode": "--proxy-mode",
        "log_level": "-v",
    }


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(HEAD + "hostnameOverride: other\nmode: iptables\n")
    found = read({"mode": "redirect-to-host"}, file, {"hostname-override": "node-1"}).settings
    assert (found.node_name, found.mode) == ("node-1", "redirect-to-host")


@pytest.mark.parametrize("flag", ["cleanup", "init-only", "write-config-to", "master", "healthz-port"])
def test_a_flag_that_cannot_be_left_out_is_refused_with_the_remedy(flag: str) -> None:
    (mistake,) = read({}, None, {flag: "true"}).mistakes
    assert str(mistake).startswith(f"--{flag}: is a flag of kube-proxy that userproxy does not have: ")


def test_a_setting_by_both_of_its_names_is_refused() -> None:
    (mistake,) = read({"node_name": "a"}, None, {"hostname-override": "b"}).mistakes
    assert str(mistake) == "--hostname-override and --node-name: are the same setting: leave one of them out"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1h0m0s", 3600), ("15m", 900), ("250ms", 0.25), ("1.5s", 1.5), ("", None), ("3", None), ("3 s", None)],
)
def test_durations_are_those_of_go(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_a_field_stands_there_once() -> None:
    for names in ([field.path for field in FIELDS], [field.flag for field in FIELDS]):
        given = [name for name in names if name]
        assert sorted(set(given)) == sorted(given)
        assert all(re.fullmatch(r"[a-zA-Z.-]+", name) for name in given)
