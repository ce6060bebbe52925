"""Connections to backends that come from the client's own address, where a Service asks for that.

Netfilter gives it to them: a worker says for which client a connection is that it is about to make
(`userproxy.model.vouching`), and takes it back as soon as the first segment is out. The answers are addressed
to the client; conntrack sends them here, if they come through this host at all:

| the pod | the client | answers come back |
|---|---|---|
| behind a veth or a bridge of this host | on another interface, or further away | yes |
| likewise | on the same bridge | yes, if bridges show their packets to netfilter |
| elsewhere | behind a veth or a bridge of this host | yes |
| elsewhere | elsewhere | no |
| the host itself, or the client itself | | no |

Where they do not, or nobody vouches, a connection comes from this node's address, and is counted as such.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket as net
from pathlib import Path
from typing import TYPE_CHECKING

from userproxy.model.address import THE_WORLD, IpFamily, family_of
from userproxy.model.settings import SourceAddress
from userproxy.model.vouching import RETRACT_PORT, VOUCH_PORT
from userproxy.net.ways import LOCAL, UNICAST, Way, Ways

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable

    from userproxy.backends.service import LiveService
    from userproxy.model.address import Address
    from userproxy.model.counters import Counters

_FAMILIES = {int(net.AF_INET): IpFamily.IPV4, int(net.AF_INET6): IpFamily.IPV6}
_HERE = {IpFamily.IPV4: "127.0.0.1", IpFamily.IPV6: "::1"}

_BEHIND_THIS_HOST = ("bridge", "netkit", "veth")
"""Kinds of interfaces that lead to pods and to nobody else, unless it is the way to the world."""

_BRIDGES_SHOW = {
    IpFamily.IPV4: Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    IpFamily.IPV6: Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
}


class Sources:
    """What a worker has to keep its clients' addresses. Lives as long as the data plane.

    Args:
        counters: of this process.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._vouchers: dict[IpFamily, socket] = {}
        self._ways: Ways | None = None

    def equip(self, vouchers: Iterable[socket]) -> None:
        """Vouch by these sockets from now on, one for a family; they belong to this object."""
        self.close()
        self._vouchers = {_FAMILIES[each.family]: each for each in vouchers}
        with contextlib.suppress(OSError):
            self._ways = Ways()

    def close(self) -> None:
        """Vouch no more."""
        for each in self._vouchers.values():
            each.close()
        self._vouchers = {}
        if self._ways is not None:
            self._ways.close()
            self._ways = None

    def lend(self, client: str, service: LiveService, pod: Address) -> str:
        """Have the next connection come from a client's address, if its Service asks for it.

        Args:
            client: its IP.
            service: whose backend the pod is.
            pod: its address.

        Returns:
            The IP that the pod will see, to be taken back (`take_back`) as soon as `connect` has returned;
            empty if that is one of this node.
        """
        if service.pool.settings.source_address is not SourceAddress.CLIENT:
            return ""
        kept = self._comes_back(client, pod.ip) and self._send(client, VOUCH_PORT)
        self._counters.backend_sources["client" if kept else "node"] += 1
        return client if kept else ""

    def take_back(self, client: str) -> None:
        """The first segment is out, or will never be: what comes next comes from where it says."""
        if not self._send(_HERE[family_of(client)], RETRACT_PORT):  # the way there is lost last
            self._send(client, RETRACT_PORT)

    def _send(self, client: str, port: int) -> bool:
        """Whether a datagram got to our rules, and no further: the kernel says EPERM when they drop it."""
        try:
            self._vouchers[family_of(client)].sendto(b"", (client, port))
        except PermissionError:
            return True
        except OSError:  # there is no way to the client
            return False
        return False

    def _comes_back(self, client: str, pod: str) -> bool:
        ip, family = ipaddress.ip_address(client), family_of(pod)
        if self._ways is None or family not in self._vouchers or family_of(client) is not family:
            return False
        if client == pod or ip.is_loopback or ip.is_link_local:
            return False
        to_client, to_pod = self._ways.to(client), self._ways.to(pod)
        if to_client is None or to_pod is None or to_client.kind not in (UNICAST, LOCAL):
            return False
        client_is_behind, pod_is_behind = (self._is_behind(way, family) for way in (to_client, to_pod))
        if client_is_behind and to_client == to_pod and to_pod.prefix < ip.max_prefixlen:
            return self._ways.kind_of(to_pod.device) == "bridge" and _is_on(_BRIDGES_SHOW[family])
        if pod_is_behind:
            return True
        return to_pod.kind == UNICAST and (client_is_behind or to_client.kind == LOCAL)

    def _is_behind(self, way: Way, family: IpFamily) -> bool:
        """Whether an address that this is the way to can be reached through this host alone."""
        assert self._ways is not None  # noqa: S101 (asked before)
        if way.kind != UNICAST or not way.direct:
            return False
        world = self._ways.to(THE_WORLD[family])
        if world is not None and world.device == way.device:
            return False
        return self._ways.kind_of(way.device) in _BEHIND_THIS_HOST


def _is_on(switch: Path) -> bool:
    try:
        return switch.read_text().strip() != "0"
    except OSError:  # bridges do not know netfilter at all
        return False
