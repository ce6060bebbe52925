"""Which connections a command is about: `--service`, `--client` and `--backend`."""

from __future__ import annotations

import functools
import ipaddress

import msgspec

from userproxy.model.address import Address, canonical_ip
from userproxy.model.service import ServicePortName

ANY_PORT = 0
"""As the port of a wanted backend: no pod listens on port 0."""


class ConnectionFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a connection must have, all of it; None asks for nothing, so the empty filter matches all.

    Attributes:
        service: with an empty port name, any port of that Service.
        client: a network that the client's IP is in, as `10.0.1.0/24`; a single IP is a /32 or a /128.
        backend: with port `ANY_PORT`, any port of that IP. A connection that has no backend yet (it is
            still dialling) does not match.

    Raises:
        ValueError: client is no network.
    """

    service: ServicePortName | None = None
    client: str | None = None
    backend: Address | None = None

    def __post_init__(self) -> None:
        if self.client is not None:
            parse_client(self.client)

    def __bool__(self) -> bool:
        return self.service is not None or self.client is not None or self.backend is not None

    def texts(self) -> dict[str, str]:
        """What is asked for, by the names of the attributes, as the functions below read it."""
        backend = self.backend
        texts = {
            "service": self.service and str(self.service),
            "client": self.client,
            "backend": backend and (str(backend) if backend.port != ANY_PORT else backend.ip),
        }
        return {name: text for name, text in texts.items() if text}

    def matches(self, service: ServicePortName, client: Address, backend: Address | None) -> bool:
        """Whether a connection from client, to a Service port, served by backend, is meant."""
        return (
            (self.service is None or is_service(self.service, service))
            and (self.backend is None or is_backend(self.backend, backend))
            and (self.client is None or ipaddress.ip_address(client.ip) in _network(self.client))
        )


def parse_service(text: str) -> ServicePortName:
    """Read `NAMESPACE/NAME` (any of its ports) or `NAMESPACE/NAME:PORT`.

    Raises:
        ValueError: text is of neither form; the message quotes it.
    """
    if text.endswith(":"):
        raise ValueError(f"{text!r} is not NAMESPACE/NAME or NAMESPACE/NAME:PORT")
    return ServicePortName.parse(text)


def parse_client(text: str) -> str:
    """Read an IP address or a network, `10.0.1.3` or `10.0.0.0/14`; bits beyond the prefix are dropped.

    Returns:
        The network in canonical form.

    Raises:
        ValueError: text is neither; the message quotes it.
    """
    try:
        return str(_network(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address or a CIDR such as 10.0.0.0/14") from None


def parse_backend(text: str) -> Address:
    """Read `10.0.1.2` (any port) or `10.0.1.2:8080`; IPv6 as `fd00::1`, `[fd00::1]` or `[fd00::1]:8080`.

    Raises:
        ValueError: text is neither; the message quotes it.
    """
    try:
        if text.startswith("[") and text.endswith("]"):
            return Address(canonical_ip(text[1:-1]), ANY_PORT)
        if ":" not in text or (text.count(":") > 1 and not text.startswith("[")):
            return Address(canonical_ip(text), ANY_PORT)
        address = Address.parse(text)
    except ValueError:
        raise ValueError(f"{text!r} is not IP or IP:PORT") from None
    if address.port == ANY_PORT:
        raise ValueError(f"{text!r} has port 0, which no backend listens on")
    return address


@functools.lru_cache(maxsize=64)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def is_service(wanted: ServicePortName, service: ServicePortName) -> bool:
    """Whether a Service port is the one that is wanted, or of the wanted Service if no port is named."""
    return (
        wanted.service == service.service
        and wanted.namespace == service.namespace
        and (not wanted.port or wanted.port == service.port)
    )


def is_backend(wanted: Address, backend: Address | None) -> bool:
    """Whether a backend is the one that is wanted, or has its IP if any port is."""
    return backend is not None and wanted.ip == backend.ip and wanted.port in (ANY_PORT, backend.port)
