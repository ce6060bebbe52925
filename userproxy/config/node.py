"""What the configuration takes from the node that it is for."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from userproxy.model.address import THE_WORLD, IpFamily, family_of

_IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC = 72, 2
"""Of RFC 5014: no temporary address, which is another one tomorrow."""
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def has_service_account() -> bool:
    """Whether this is a pod that may speak to its API server."""
    return _SERVICE_ACCOUNT.exists()


def host_name() -> str:
    """What a kubelet here would call the node."""
    return socket.gethostname().lower()


def primary_address(family: IpFamily) -> str:
    """The address of a family that the kernel would speak to the world from; empty if there is none."""
    ip = _source_address(THE_WORLD[family])
    return "" if ip and ipaddress.ip_address(ip).is_link_local else ip


def is_own_address(ip: str) -> bool:
    """Whether an address is one of this node's now."""
    return _source_address(ip) == ip  # to an address of its own, a node speaks from it


def _source_address(ip: str) -> str:
    """From where the kernel would speak to an address; no packet is sent."""
    is_ipv6 = family_of(ip) is IpFamily.IPV6
    try:
        with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            if is_ipv6:
                probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC)
            probe.connect((ip, 9))
            source: str = probe.getsockname()[0]
    except OSError:  # no way there, or no such family at all
        return ""
    return source
