"""Sets a `Deployment` up in network namespaces, and takes it back. Plain `ip`, in batches.

Every veth is born with both ends inside namespaces, so the machine's own links, routes, rules and
sysctls are never touched. `ip netns` keeps a namespace alive by a file in /run/netns; these files,
and what runs in the namespaces, are all that is to be removed.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from userproxy.lab.topology import Deployment, Host

NETNS_DIRECTORY = Path("/run/netns")
_CAPABILITIES = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN"}
_NETLINK_NETFILTER = 12
_NFT_MSG_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2

# Nobody waits to see whether somebody else has the address.
_LINK_SYSCTLS = ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
_POD_SYSCTLS = (*_LINK_SYSCTLS, "net.ipv4.ip_forward=0")
_ROUTER_SYSCTLS = (
    *_LINK_SYSCTLS,
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    # A namespace inherits these from the machine; routes as tabled must not depend on it. The gateway
    # would also tell the hosts of shorter ways (ICMP redirect), since both are on one of its links.
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
)
# Kubernetes asks for this of each node: what pods on one bridge say to each other passes the ip hooks,
# or the answer of a pod on the client's own bridge would go back without being translated.
_BRIDGE_SYSCTLS = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")
_HOST_SYSCTLS = (*_ROUTER_SYSCTLS, *(f"{name}=1" for name in _BRIDGE_SYSCTLS))
_GATEWAY_SYSCTLS = (*_ROUTER_SYSCTLS, *(f"{name}=0" for name in _BRIDGE_SYSCTLS))
_IPV6 = Path("/proc/sys/net/ipv6")


class LabError(Exception):
    """The lab cannot be built or asked; the message is one line that names what is wrong and the remedy."""


def preflight(programs: Iterable[str] = ()) -> None:
    """See that this machine can carry a lab, before anything is changed.

    Args:
        programs: needed beside `ip`, `sysctl` and `setpriv`.

    Raises:
        LabError: something is missing; the message names it.
    """
    for program in ("ip", "sysctl", "setpriv", *programs):
        if not shutil.which(program):
            raise LabError(
                f"`{program}` is not on PATH: scripts/install brings the programs that the lab needs"
            )
    if not Path("/proc/self/ns/net").exists():
        raise LabError("this kernel has no network namespaces (CONFIG_NET_NS): the lab cannot be built here")
    missing = _missing_capabilities()
    if missing:
        raise LabError(f"network namespaces need root ({', '.join(missing)} missing): run it with sudo")
    if not _has_nftables():
        raise LabError("this kernel has no nftables (CONFIG_NF_TABLES): the lab cannot be built here")


def create(deployment: Deployment, namespace: Callable[[str], str]) -> None:
    """Make every namespace of a deployment, and the links, addresses, routes and sysctls in them.

    Args:
        deployment: what to build.
        namespace: the name of a namespace, by the member's plain name.

    Raises:
        LabError: a step was refused; what was made until then is still there.
    """
    _batch(None, [f"netns add {namespace(member)}" for member in deployment.members])
    sysctls: dict[str, tuple[str, ...]] = {pod.name: _POD_SYSCTLS for pod in deployment.pods}
    sysctls |= {host.name: _HOST_SYSCTLS for host in deployment.hosts}
    sysctls[deployment.gateway] = _GATEWAY_SYSCTLS
    for member, settings in sysctls.items():
        _batch(namespace(member), ["link set lo up"])
        # net.bridge exists in a namespace from its birth where the bridge's netfilter is in the kernel.
        known = [
            each for each in settings if Path("/proc/sys", each.split("=")[0].replace(".", "/")).exists()
        ]
        _run(["ip", "netns", "exec", namespace(member), "sysctl", "-qw", *known])
    for host in deployment.hosts:
        _batch(namespace(host.name), _host_links(deployment, host, namespace))
    _batch(namespace(deployment.gateway), _gateway_links(deployment))
    for host in deployment.hosts:
        for pod in host.pods:
            _batch(
                namespace(pod.name),
                [
                    f"address add {pod.ip}/{_prefix_length(host.pod_network)} dev eth0",
                    *_address6(pod.ip6, host.pod_network6, "eth0"),
                    "link set eth0 up",
                    f"route add default via {host.bridge_ip}",
                    *_route6("default", host.bridge_ip6),
                ],
            )


def carries(names: Iterable[str]) -> bool:
    """Whether every link in these namespaces is up, so that a packet sent now arrives.

    A bridge has no carrier until its first port does, and the kernel tells it so only once a second.
    """
    return all(
        state == "UP"
        for name in names
        for link, state, *_ in map(str.split, _run(["ip", "-netns", name, "-brief", "link"]).splitlines())
        if link != "lo"
    )


def destroy(names: Iterable[str]) -> None:
    """Delete those namespaces that exist. Whatever ran in them must be gone, or it keeps them alive unseen.

    Raises:
        LabError: one could not be deleted.
    """
    for name in existing(names):
        _run(["ip", "netns", "delete", name])


def existing(names: Iterable[str]) -> list[str]:
    """Which of these namespaces exist, also half-made ones."""
    return [name for name in names if (NETNS_DIRECTORY / name).exists()]


def fingerprint() -> dict[str, str]:
    """What the machine's own network looks like: by kind, the text of its links, routes, rules and firewall.

    Two of them are equal if nothing was changed in between. Counters and lifetimes are left out.
    """
    found = {
        "links": _run(["ip", "-brief", "link"]),
        "routes": _run(["ip", "-4", "route", "show", "table", "all"]),
        "rules": _run(["ip", "rule"]),
        "sysctls": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }
    if shutil.which("nft"):
        found["firewall"] = _run(["nft", "--stateless", "list", "ruleset"])
    return found


def _host_links(deployment: Deployment, host: Host, namespace: Callable[[str], str]) -> list[str]:
    lines = [
        f"link add eth0 type veth peer name {host.name} netns {namespace(deployment.gateway)}",
        f"address add {host.ip}/{_prefix_length(deployment.host_network)} dev eth0",
        *_address6(host.ip6, deployment.host_network6, "eth0"),
        "link set eth0 up",
        f"route add default via {deployment.gateway_ip}",
        *_route6("default", deployment.gateway_ip6),
        "link add cbr0 type bridge stp_state 0",
        f"address add {host.bridge_ip}/{_prefix_length(host.pod_network)} dev cbr0",
        *_address6(host.bridge_ip6, host.pod_network6, "cbr0"),
        "link set cbr0 up",
    ]
    for pod in host.pods:
        lines += [
            f"link add {pod.name} type veth peer name eth0 netns {namespace(pod.name)}",
            f"link set {pod.name} master cbr0 up",
            # As the kubelet's hairpin-veth: a pod may be its own Service's backend (redirect to pod).
            f"link set {pod.name} type bridge_slave hairpin on",
        ]
    return lines


def _gateway_links(deployment: Deployment) -> list[str]:
    return [
        "link add hosts type bridge stp_state 0",
        f"address add {deployment.gateway_ip}/{_prefix_length(deployment.host_network)} dev hosts",
        *_address6(deployment.gateway_ip6, deployment.host_network6, "hosts"),
        "link set hosts up",
        *(f"link set {host.name} master hosts up" for host in deployment.hosts),
        *(f"route add {host.pod_network} via {host.ip}" for host in deployment.hosts),
        *(line for host in deployment.hosts for line in _route6(host.pod_network6, host.ip6)),
    ]


def _address6(ip: str, network: str, device: str) -> list[str]:
    """An IPv6 address, if there is one and this machine speaks it."""
    if not ip or not _IPV6.exists():
        return []
    return [f"address add {ip}/{_prefix_length(network)} dev {device} nodad"]


def _route6(network: str, gateway: str) -> list[str]:
    return [f"route add {network} via {gateway}"] if gateway and _IPV6.exists() else []


def _prefix_length(network: str) -> str:
    return network.partition("/")[2]


def _batch(namespace: str | None, lines: list[str]) -> None:
    where = [] if namespace is None else ["-netns", namespace]
    _run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def _run(argv: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=True)  # noqa: S603 our own argv
    except subprocess.CalledProcessError as error:
        reason = " ".join(str(error.stderr).split()) or f"exit code {error.returncode}"
        raise LabError(f"`{' '.join(argv)}` was refused: {reason}") from None
    return done.stdout


def _missing_capabilities() -> list[str]:
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]


def _has_nftables() -> bool:
    """Ask the kernel for its nftables generation, which loads the module where there is one."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.settimeout(2)
            netlink.send(struct.pack("=IHHII4x", 20, _NFT_MSG_GETGEN, _NLM_F_REQUEST, 1, 0))
            (kind,) = struct.unpack_from("=H", netlink.recv(4096), 4)
    except OSError:
        return False
    return bool(kind != _NLMSG_ERROR)
