"""The header of the PROXY protocol: who the client of a relayed connection is. Pure.

Versions 1 (a line of text) and 2 (binary), as HAProxy's `doc/proxy-protocol.txt` has them, for TCP.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import NamedTuple

from userproxy.model.address import MAX_PORT, Address
from userproxy.model.settings import ProxyProtocol

MOST_BYTES = 4096
"""The longest header that is taken: addresses and all that balancers are known to add are a tenth of it."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_START = struct.Struct("!12sBBH")  # signature, version and command, family and protocol, bytes that follow
_LOCAL, _PROXY = 0x20, 0x21
_STREAM4, _STREAM6 = 0x11, 0x21
_INET4, _INET6 = struct.Struct("!4s4sHH"), struct.Struct("!16s16sHH")
_TLV = struct.Struct("!BH")
_UNIQUE_ID, _SERVICE = 0x05, 0xE0
"""PP2_TYPE_UNIQUE_ID, and the first of the types that are an application's own."""
_MOST_UNIQUE_ID = 128

_WORD, _END = b"PROXY ", b"\r\n"
_MOST_LINE = 107
_LINE = re.compile(rb"TCP[46] ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_UNKNOWN = b"UNKNOWN"


class BadHeaderError(ValueError):
    """What came is no header; the message completes "... is not"."""


class Header(NamedTuple):
    """What a header says.

    Attributes:
        client: the client's own address; None if the sender speaks for itself, as in a health check.
        destination: what the client had connected to; None likewise.
        size: bytes of the header.
    """

    client: Address | None
    destination: Address | None
    size: int


def encode(
    version: ProxyProtocol, client: Address, destination: Address, *, name: str = "", service: str = ""
) -> bytes:
    """The header for a connection.

    Args:
        version: 1 or 2.
        client: whose connection it is.
        destination: what the client had connected to.
        name: of the connection, for logs; only version 2 has a place for it, and for the next.
        service: the Service port.
    """
    is_ipv6 = client.is_ipv6 or destination.is_ipv6
    ips = [_mapped(each) if is_ipv6 else each.ip for each in (client, destination)]
    ports = client.port, destination.port
    if version is ProxyProtocol.V1:
        return f"PROXY TCP{6 if is_ipv6 else 4} {ips[0]} {ips[1]} {ports[0]} {ports[1]}\r\n".encode()
    kind, packing = (_STREAM6, _INET6) if is_ipv6 else (_STREAM4, _INET4)
    body = packing.pack(*(ipaddress.ip_address(ip).packed for ip in ips), *ports)
    body += _tlv(_UNIQUE_ID, name.encode()[:_MOST_UNIQUE_ID]) + _tlv(_SERVICE, service.encode())
    return _START.pack(_SIGNATURE, _PROXY, kind, len(body)) + body


def for_own_check(version: ProxyProtocol) -> bytes:
    """The header of a connection that is nobody's: a health check."""
    return b"PROXY UNKNOWN\r\n" if version is ProxyProtocol.V1 else _START.pack(_SIGNATURE, _LOCAL, 0, 0)


def decode(begun: bytes) -> Header | None:
    """What the first bytes of a connection say; None if the header goes on behind them.

    Raises:
        BadHeaderError: they cannot be the beginning of one.
    """
    if begun.startswith(_WORD[: len(begun)]):
        return _decode_line(begun)
    if begun.startswith(_SIGNATURE[: len(begun)]):
        return _decode_binary(begun)
    raise BadHeaderError("a header of the PROXY protocol")


def _mapped(address: Address) -> str:
    """The IP as one of IPv6: a balancer may translate between the families."""
    return address.ip if address.is_ipv6 else f"::ffff:{address.ip}"


def _tlv(kind: int, value: bytes) -> bytes:
    return _TLV.pack(kind, len(value)) + value if value else b""


def _decode_line(begun: bytes) -> Header | None:
    end = begun.find(_END, 0, _MOST_LINE)
    if end < 0:
        if len(begun) >= _MOST_LINE:
            raise BadHeaderError(f"a line of at most {_MOST_LINE} bytes")
        return None
    said, size = begun[len(_WORD) : end], end + len(_END)
    if said.startswith(_UNKNOWN):
        return Header(None, None, size)
    found = _LINE.fullmatch(said)
    if found is None:
        raise BadHeaderError("`PROXY TCP4|TCP6 IP IP PORT PORT`")
    ips = [_ip(found[1]), _ip(found[2])]
    ports = [int(found[3]), int(found[4])]
    if max(ports) > MAX_PORT:
        raise BadHeaderError(f"a port up to {MAX_PORT}")
    return Header(Address(ips[0], ports[0]), Address(ips[1], ports[1]), size)


def _ip(text: bytes) -> str:
    try:
        return _unmapped(text.decode())
    except ValueError:
        raise BadHeaderError("an IP address") from None


def _unmapped(said: str | bytes) -> str:
    ip = ipaddress.ip_address(said)
    return str((isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip)


def _decode_binary(begun: bytes) -> Header | None:
    if len(begun) < _START.size:
        return None
    _, command, kind, length = _START.unpack_from(begun)
    size = _START.size + length
    if size > MOST_BYTES:
        raise BadHeaderError(f"a header of at most {MOST_BYTES} bytes")
    if command not in (_LOCAL, _PROXY):
        raise BadHeaderError("a command of version 2 (LOCAL or PROXY)")
    if len(begun) < size:
        return None
    packing = {_STREAM4: _INET4, _STREAM6: _INET6}.get(kind)
    if command == _LOCAL or packing is None:  # to be served under the connection's own address
        return Header(None, None, size)
    if length < packing.size:
        raise BadHeaderError("long enough for its addresses")
    client, destination, *ports = packing.unpack_from(begun, _START.size)
    return Header(
        Address(_unmapped(client), ports[0]),
        Address(_unmapped(destination), ports[1]),
        size,
    )
