"""The PROXY protocol's header, as its specification has it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.address import Address
from userproxy.model.settings import ProxyProtocol
from userproxy.net.proxy_protocol import BadHeaderError, Header, decode, encode, for_own_check

CLIENT, DESTINATION = Address("10.0.1.3", 56324), Address("10.3.241.152", 443)
CLIENT6 = Address("fd00::3", 56324)
SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
VERSIONS = (ProxyProtocol.V1, ProxyProtocol.V2)

addresses = st.builds(Address, st.ip_addresses().map(str), st.integers(0, 65535))


def test_version_1_is_a_line_of_text() -> None:
    assert encode(ProxyProtocol.V1, CLIENT, DESTINATION) == b"PROXY TCP4 10.0.1.3 10.3.241.152 56324 443\r\n"


def test_version_2_is_as_the_specification_has_it() -> None:
    header = encode(ProxyProtocol.V2, CLIENT, DESTINATION, name="7-1", service="a/b:c")
    addresses = bytes([10, 0, 1, 3, 10, 3, 241, 152]) + b"\xdc\x04\x01\xbb"
    names = b"\x05\x00\x037-1" + b"\xe0\x00\x05a/b:c"
    assert header == SIGNATURE + b"\x21\x11\x00\x1a" + addresses + names


@pytest.mark.parametrize("version", VERSIONS)
@given(client=addresses, destination=addresses)
def test_what_is_said_is_understood(version: ProxyProtocol, client: Address, destination: Address) -> None:
    header = encode(version, client, destination, name="7-1", service="shop/cart:http")
    said = decode(header + b"GET /")
    assert said is not None
    assert said.size == len(header)
    assert said.client == _canonical(client)
    assert said.destination == _canonical(destination)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_piece_of_a_header_but_the_last_means_that_it_goes_on(version: ProxyProtocol) -> None:
    header = encode(version, CLIENT6, CLIENT6)
    assert [decode(header[:size]) for size in range(len(header))] == [None] * len(header)
    assert decode(header) == Header(CLIENT6, CLIENT6, len(header))


def test_addresses_of_two_families_are_both_told_as_ones_of_ipv6() -> None:
    assert encode(ProxyProtocol.V1, CLIENT6, DESTINATION) == (
        b"PROXY TCP6 fd00::3 ::ffff:10.3.241.152 56324 443\r\n"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_check_of_our_own_names_nobody(version: ProxyProtocol) -> None:
    said = for_own_check(version)
    assert decode(said + b"GET /") == Header(None, None, len(said))


@pytest.mark.parametrize(
    "said",
    [
        b"PROXY UNKNOWN fe80::1%eth0 whatever 1 2\r\n",
        SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12),  # LOCAL, with addresses
        SIGNATURE + b"\x21\x31\x00\x03abc",  # a unix socket's
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # of UDP
    ],
)
def test_what_names_no_tcp_client_is_passed_over(said: bytes) -> None:
    assert decode(said + b"GET /") == Header(None, None, len(said))


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",  # TLS
        b"PROXY TCP4 10.0.1.3 10.3.241.152 56324\r\n",
        b"PROXY TCP4 10.0.1.3 10.3.241.152 56324 65536\r\n",
        b"PROXY TCP4 10.0.1.300 10.3.241.152 1 2\r\n",
        b"PROXY TCP4 10.0.1.3 10.3.241.152 01 2\r\n",
        b"PROXY TCP9 10.0.1.3 10.3.241.152 1 2\r\n",
        b"PROXY " + b"x" * 101,
        SIGNATURE + b"\x11\x11\x00\x00",  # version 1, in binary
        SIGNATURE + b"\x22\x11\x00\x00",  # a command that there is not
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),  # too short for its addresses
        SIGNATURE + b"\x21\x11\xff\xff",  # 64 KiB of it
    ],
)
def test_what_is_no_header_is_refused(said: bytes) -> None:
    with pytest.raises(BadHeaderError):
        decode(said)


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda data: SIGNATURE + data))
def test_whatever_comes_is_a_header_or_goes_on_or_is_refused(said: bytes) -> None:
    try:
        header = decode(said)
    except BadHeaderError:
        return
    assert header is None or header.size <= len(said)


def _canonical(address: Address) -> Address:
    ip = ipaddress.ip_address(address.ip)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Address(str(mapped or ip), address.port)
