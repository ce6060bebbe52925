"""kube-proxy's settings: each with its place in the file, its flag, its default, and what it sets here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from userproxy.config.kube_proxy import meanings
from userproxy.config.kube_proxy.meanings import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_EMPTY = frozenset({"", "0", "false"})


class Field(NamedTuple):
    """One of kube-proxy's settings.

    Attributes:
        path: in the file; empty if it is a flag alone.
        flag: without the dashes; empty if there is none.
        defaults: as text, beside the empty ones; of durations the seconds. `true`: the only one.
        setting: the field of `Settings` that it sets; empty if it means nothing here.
        read: makes the value of that setting of its own, of `meanings`.
        is_switch: a flag that means `true` where it has no value.
    """

    path: str
    flag: str = ""
    defaults: tuple[str, ...] = ()
    setting: str = ""
    read: Callable[[object], object | None] = meanings.text
    is_switch: bool = False

    def is_default(self, value: object) -> bool:
        """Whether it is as if nobody had set it."""
        plain = _plain(value)
        return value is None or plain in self.defaults or (plain in _EMPTY and self.defaults != ("true",))


def _plain(value: object) -> str:
    """A value as the text of a default."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        found = seconds(value)
        return value.lower() if found is None else f"{found:g}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value or isinstance(value, int) else ""


_TIMES = ("30",)

FIELDS = (
    Field("clientConnection.kubeconfig", setting="kubeconfig"),
    Field("hostnameOverride", "hostname-override", setting="node_name", read=meanings.node_name),
    Field("bindAddress", "bind-address", setting="host_ip", read=meanings.host_ip),
    Field("clusterCIDR", setting="cluster_cidr"),
    Field("nodePortAddresses", setting="nodeport_addresses", read=meanings.node_ports),
    Field("healthzBindAddress", setting="healthz_bind_address", read=meanings.serving(10256)),
    Field("metricsBindAddress", setting="metrics_bind_address", read=meanings.serving(10249)),
    Field("mode", "proxy-mode", setting="mode", read=meanings.mode),
    Field("portRange", "proxy-port-range", setting="port_range", read=meanings.port_range),
    Field("udpIdleTimeout", "udp-timeout", ("0.25",), "udp_idle_seconds", meanings.udp_idle),
    Field("logging.format", "logging-format", setting="log_format", read=meanings.log_format),
    Field("logging.verbosity", "v", setting="log_level", read=meanings.verbosity),
    # What follows means nothing here.
    Field("detectLocalMode", "detect-local-mode", ("clustercidr", "nodecidr")),
    Field("detectLocal.bridgeInterface", "pod-bridge-interface"),
    Field("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix"),
    Field("iptables.masqueradeAll", "masquerade-all", is_switch=True),
    Field("iptables.masqueradeBit", "iptables-masquerade-bit", ("14",)),
    Field("iptables.localhostNodePorts", "iptables-localhost-nodeports", ("true",), is_switch=True),
    Field("iptables.snatNodeInternalIP"),
    Field("iptables.syncPeriod", "iptables-sync-period", _TIMES),
    Field("iptables.minSyncPeriod", "iptables-min-sync-period", ("1",)),
    Field("nftables.masqueradeAll"),
    Field("nftables.masqueradeBit", defaults=("14",)),
    Field("nftables.syncPeriod", defaults=_TIMES),
    Field("nftables.minSyncPeriod", defaults=("1",)),
    Field("ipvs.scheduler", "ipvs-scheduler", ("rr",)),
    Field("ipvs.excludeCIDRs", "ipvs-exclude-cidrs"),
    Field("ipvs.strictARP", "ipvs-strict-arp", is_switch=True),
    Field("ipvs.syncPeriod", "ipvs-sync-period", _TIMES),
    Field("ipvs.minSyncPeriod", "ipvs-min-sync-period", ("1",)),
    Field("ipvs.tcpTimeout", "ipvs-tcp-timeout"),
    Field("ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout"),
    Field("ipvs.udpTimeout", "ipvs-udp-timeout"),
    Field("conntrack.max"),
    Field("conntrack.maxPerCore", "conntrack-max-per-core", ("32768",)),
    Field("conntrack.min", "conntrack-min", ("131072",)),
    Field("conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established", ("86400",)),
    Field("conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait", ("3600",)),
    Field("conntrack.tcpBeLiberal", "conntrack-tcp-be-liberal", is_switch=True),
    Field("conntrack.udpTimeout", "conntrack-udp-timeout"),
    Field("conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream"),
    Field("bindAddressHardFail", "bind-address-hard-fail", is_switch=True),
    Field("enableProfiling", "profiling", is_switch=True),
    Field("showHiddenMetricsForVersion", "show-hidden-metrics-for-version"),
    Field("oomScoreAdj", "oom-score-adj", ("-999",)),
    Field("resourceContainer", defaults=("/kube-proxy",)),
    Field("configSyncPeriod", "config-sync-period", ("900",)),
    Field("featureGates", "feature-gates"),
    Field("clientConnection.acceptContentTypes"),
    Field("clientConnection.contentType", "kube-api-content-type", ("application/vnd.kubernetes.protobuf",)),
    Field("clientConnection.qps", "kube-api-qps", ("5",)),
    Field("clientConnection.burst", "kube-api-burst", ("10",)),
    Field("logging.flushFrequency", "log-flush-frequency", ("5", "5000000000")),
    Field("logging.vmodule", "vmodule"),
    Field("logging.options.json.infoBufferSize", "log-json-info-buffer-size"),
    Field("logging.options.json.splitStream", "log-json-split-stream", is_switch=True),
    Field("logging.options.text.infoBufferSize", "log-text-info-buffer-size"),
    Field("logging.options.text.splitStream", "log-text-split-stream", is_switch=True),
    Field("winkernel.networkName", "network-name"),
    Field("winkernel.sourceVip", "source-vip"),
    Field("winkernel.enableDSR", "enable-dsr", is_switch=True),
    Field("winkernel.rootHnsEndpointName", "root-hnsendpoint-name", ("cbr0",)),
    Field("winkernel.forwardHealthCheckVip", "forward-healthcheck-vip", is_switch=True),
    Field("windowsRunAsService", "windows-service", is_switch=True),
    Field("", "alsologtostderr", is_switch=True),
    Field("", "logtostderr", ("true",), is_switch=True),
    Field("", "stderrthreshold", ("2",)),
    Field("", "add-dir-header", is_switch=True),
    Field("", "skip-headers", is_switch=True),
    Field("", "skip-log-headers", is_switch=True),
    Field("", "one-output", is_switch=True),
    Field("", "log-backtrace-at", (":0",)),
    Field("", "log-dir"),
    Field("", "log-file"),
    Field("", "log-file-max-size", ("1800",)),
)
"""Those of Kubernetes 1.16 to 1.35, but for those flags that have the same name and meaning here."""

DANGEROUS = {
    "cleanup": "`userproxy cleanup` removes what userproxy has left, `kube-proxy --cleanup` the rest",
    "init-only": "there is nothing to set up beforehand: leave out the container that does",
    "write-config-to": "`userproxy config show -o yaml` prints the configuration",
    "master": "name the API server in the file of --kubeconfig",
    "healthz-port": "use --healthz-bind-address",
    "metrics-port": "use --metrics-bind-address",
}
"""Flags of kube-proxy that are refused, with the remedy: left out, the daemon would do what nobody wants."""

OF_BOTH = (
    "config",
    "cluster-cidr",
    "healthz-bind-address",
    "kubeconfig",
    "metrics-bind-address",
    "nodeport-addresses",
)
"""The flags that have the same name and meaning here."""
