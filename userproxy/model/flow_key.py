"""Names of connections as their packets carry them: bytes, so that nothing is translated for each packet.

| key | bytes |
|---|---|
| of a connection | protocol, client's IP, frontend's IP, client's port, frontend's port: 13, or 37 of IPv6 |
| of a frontend | protocol, its IP, its port: 7, or 19 of IPv6 |
"""

from __future__ import annotations

import functools
import ipaddress
import sys
from typing import TYPE_CHECKING

from userproxy.model.service import Protocol

if TYPE_CHECKING:
    from userproxy.model.address import Address

TCP, UDP = 6, 17
"""IANA protocol numbers."""

_NUMBERS = {Protocol.TCP: TCP, Protocol.UDP: UDP}
_IPV4_KEY = 13
_INET, _INET6 = (2).to_bytes(2, sys.byteorder), (10).to_bytes(2, sys.byteorder)


def frontend_key(protocol: Protocol, frontend: Address) -> bytes:
    """The key of a frontend."""
    return bytes([_NUMBERS[protocol]]) + _packed(frontend.ip) + frontend.port.to_bytes(2)


def flow_key(protocol: Protocol, client: Address, frontend: Address) -> bytes:
    """The key of a client's connection to a frontend."""
    ports = client.port.to_bytes(2) + frontend.port.to_bytes(2)
    return bytes([_NUMBERS[protocol]]) + _packed(client.ip) + _packed(frontend.ip) + ports


def frontend_of(flow: bytes) -> bytes:
    """The key of a connection's frontend."""
    if len(flow) == _IPV4_KEY:
        return flow[:1] + flow[5:9] + flow[11:]
    return flow[:1] + flow[17:33] + flow[35:]


def client_of(flow: bytes) -> str:
    """The client's IP."""
    return _text(flow[1:5] if len(flow) == _IPV4_KEY else flow[1:17])


def sockaddr_of(flow: bytes) -> bytes:
    """A connection's frontend as a `sockaddr` of 16 or 28 bytes (linux/in.h, linux/in6.h)."""
    if len(flow) == _IPV4_KEY:
        return _INET + flow[11:] + flow[5:9] + bytes(8)
    return _INET6 + flow[35:] + bytes(4) + flow[17:33] + bytes(4)


def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


@functools.lru_cache(maxsize=16384)
def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))
