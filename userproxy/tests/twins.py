"""The same scene in the other family: each IPv4 address has an IPv6 twin, and so has what is made of them."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from userproxy.model.address import Address

_PREFIX = int(ipaddress.IPv6Address("fd00:4::"))
_IPV4_BITS = 32


def twin(value: Any) -> Any:  # noqa: ANN401 - of any type that has addresses in it
    """The value with an IPv6 address or network in the place of each one of IPv4."""
    match value:
        case Address(ip, port):
            return Address(twin(ip), port)
        case msgspec.Struct():
            parts = {name: twin(getattr(value, name)) for name in value.__struct_fields__}
            return type(value)(**parts)
        case tuple() | frozenset():
            return type(value)(map(twin, value))
        case dict():
            return {twin(key): twin(each) for key, each in value.items()}
        case str():
            return _twin_of_text(value)
        case _:
            return value


def original(ip: str) -> str:
    """The IPv4 address that this is the twin of."""
    return str(ipaddress.IPv4Address(int(ipaddress.IPv6Address(ip)) - _PREFIX))


def _twin_of_text(text: str) -> str:
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError:
        return text
    ip = ipaddress.IPv6Address(_PREFIX + int(interface.ip))
    if "/" not in text:
        return str(ip)
    prefix = interface.network.prefixlen
    return f"{ip}/{128 - _IPV4_BITS + prefix}" if prefix else "::/0"
