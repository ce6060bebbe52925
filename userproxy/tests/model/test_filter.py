"""Which connections `--service`, `--client` and `--backend` mean."""

from __future__ import annotations

import msgspec
import pytest

from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter, parse_backend, parse_client, parse_service
from userproxy.model.service import ServicePortName

WEB = ServicePortName("default", "web", "http")
CLIENT = Address("10.0.1.3", 40000)
CLIENT6 = Address("fd00::3", 40000)
BACKEND = Address("10.0.1.2", 8080)


@pytest.mark.parametrize(
    ("text", "name", "meant"),
    [
        ("default/web", WEB, True),
        ("default/web", ServicePortName("default", "web"), True),
        ("default/web:http", WEB, True),
        ("default/web:https", WEB, False),
        ("default/web:http", ServicePortName("default", "web"), False),
        ("other/web", WEB, False),
        ("default/web2", WEB, False),
    ],
)
def test_a_service_without_a_port_means_all_its_ports(text: str, name: ServicePortName, meant: bool) -> None:
    assert ConnectionFilter(service=parse_service(text)).matches(name, CLIENT, BACKEND) is meant


@pytest.mark.parametrize(
    ("text", "client", "meant"),
    [
        ("10.0.1.3", CLIENT, True),
        ("10.0.1.4", CLIENT, False),
        ("10.0.0.0/14", CLIENT, True),
        ("10.0.1.77/24", CLIENT, True),
        ("10.4.0.0/14", CLIENT, False),
        ("0.0.0.0/0", CLIENT, True),
        ("0.0.0.0/0", CLIENT6, False),
        ("fd00::/64", CLIENT6, True),
        ("FD00::3", CLIENT6, True),
        ("::/0", CLIENT, False),
    ],
)
def test_a_client_is_an_address_or_a_network(text: str, client: Address, meant: bool) -> None:
    assert ConnectionFilter(client=parse_client(text)).matches(WEB, client, BACKEND) is meant


@pytest.mark.parametrize(
    ("text", "backend", "meant"),
    [
        ("10.0.1.2", BACKEND, True),
        ("10.0.1.2:8080", BACKEND, True),
        ("10.0.1.2:8081", BACKEND, False),
        ("10.0.2.2", BACKEND, False),
        ("10.0.1.2", None, False),
        ("fd00::2", Address("fd00::2", 80), True),
        ("[fd00::2]", Address("fd00::2", 80), True),
        ("[fd00:0::2]:80", Address("fd00::2", 80), True),
        ("[fd00::2]:81", Address("fd00::2", 80), False),
    ],
)
def test_a_backend_without_a_port_means_all_its_ports(
    text: str, backend: Address | None, meant: bool
) -> None:
    assert ConnectionFilter(backend=parse_backend(text)).matches(WEB, CLIENT, backend) is meant


def test_the_empty_filter_means_every_connection() -> None:
    assert ConnectionFilter().matches(WEB, CLIENT, None)
    assert not ConnectionFilter()


def test_all_parts_must_match() -> None:
    wanted = ConnectionFilter(service=WEB, client="10.0.1.3/32", backend=BACKEND)

    assert wanted
    assert wanted.matches(WEB, CLIENT, BACKEND)
    assert not wanted.matches(WEB, CLIENT, Address("10.0.2.2", 8080))
    assert not wanted.matches(WEB, Address("10.0.1.4", 40000), BACKEND)
    assert not wanted.matches(ServicePortName("default", "web"), CLIENT, BACKEND)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *[(parse_service, text) for text in ("", "web", "/web", "default/", "a/b/c", "default/web:")],
        *[
            (parse_client, text)
            for text in ("", "host", "10.0.1", "10.0.1.3/33", "10.0.1.3:80", "fd00::/129")
        ],
        *[(parse_backend, text) for text in ("", "pod", "10.0.1.2:", "10.0.1.2:x", "10.0.1.2:65536")],
        *[(parse_backend, text) for text in ("10.0.1.2:0", "[fd00::2", "[10.0.1.2]:80", "fe80::1%eth0")],
    ],
)
def test_what_is_no_filter_is_refused_and_quoted(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=r"is not|has port 0") as refused:
        parse(text)
    assert repr(text) in str(refused.value)


def test_a_filter_survives_the_wire_and_a_wrong_one_does_not_come_in() -> None:
    wanted = ConnectionFilter(service=WEB, client="10.0.0.0/14", backend=BACKEND)

    assert msgspec.json.decode(msgspec.json.encode(wanted), type=ConnectionFilter) == wanted
    with pytest.raises(msgspec.ValidationError, match="'nonsense' is not an IP address"):
        msgspec.json.decode(b'{"client": "nonsense"}', type=ConnectionFilter)
