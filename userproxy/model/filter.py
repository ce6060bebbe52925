"""Which connections a command is about: `--service`, `--client`, `--backend`, and how they ended."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

import msgspec

from userproxy.model.address import Address, canonical_ip
from userproxy.model.endings import RECORDED, Reason
from userproxy.model.service import ServicePortName

if TYPE_CHECKING:
    from userproxy.model.records import Record

ANY_PORT = 0
"""As the port of a wanted backend: no pod listens on port 0."""


class ConnectionFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a connection must have, all of it; None asks for nothing, so the empty filter matches all.

    Attributes:
        service: with an empty port name, any port of that Service.
        client: a network that the client's IP is in, as `10.0.1.0/24`; a single IP is a /32 or a /128.
        backend: with port `ANY_PORT`, any port of that IP. A connection that has no backend yet (it is
            still dialling) does not match.
        source: whom the backend sees, likewise.

    Raises:
        ValueError: client is no network.
    """

    service: ServicePortName | None = None
    client: str | None = None
    backend: Address | None = None
    source: Address | None = None

    def __post_init__(self) -> None:
        if self.client is not None:
            parse_client(self.client)

    def __bool__(self) -> bool:
        return self != _ALL

    def texts(self) -> dict[str, str]:
        """What is asked for, by the names of the attributes, as the functions below read it."""
        texts = {
            "service": self.service and str(self.service),
            "client": self.client,
            "backend": self.backend and shown(self.backend),
            "source": self.source and shown(self.source),
        }
        return {name: text for name, text in texts.items() if text}

    def matches(self, service: ServicePortName, client: Address, backend: Address | None) -> bool:
        """Whether a connection from client, to a Service port, served by backend, is meant."""
        return (
            (self.service is None or is_service(self.service, service))
            and (self.backend is None or is_backend(self.backend, backend))
            and (self.client is None or ipaddress.ip_address(client.ip) in _network(self.client))
        )

    def has_source(self, source: Address | None) -> bool:
        """Whether a connection is meant whose backend sees that address, which a system call tells."""
        return self.source is None or is_backend(self.source, source)


_ALL = ConnectionFilter()


class RecordFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a record of a connection must have, all of it; the empty filter matches all.

    Attributes:
        connections: what a connection must have.
        id: its id; empty: any.
        since: it is over since then at the earliest, in seconds since the epoch, or lives.
        reasons: it ended for one of these; none: for whichever.
        live: those that live are meant too.
        ended: those that are over are meant too.
    """

    connections: ConnectionFilter = ConnectionFilter()
    id: str = ""
    since: float = 0.0
    reasons: tuple[Reason, ...] = ()
    live: bool = True
    ended: bool = True

    def texts(self) -> list[tuple[str, str]]:
        """What is asked for, each by a name; one may be there more than once."""
        texts = list(self.connections.texts().items())
        if self.id:
            texts.append(("id", self.id))
        if self.since:
            texts.append(("since", str(self.since)))
        texts += (("reason", reason.value) for reason in self.reasons)
        texts += (("which", name) for name in ("live", "ended") if not getattr(self, _OTHER[name]))
        return texts

    def matches(self, record: Record) -> bool:
        """Whether a record is meant."""
        wanted, reason = self.connections, record.reason
        return (
            (self.live if reason is None else self.ended and record.ended >= self.since)
            and (not self.reasons or reason in self.reasons)
            and (not self.id or self.id == record.id)
            and (not wanted or wanted.matches(record.service, record.client, record.backend))
            and wanted.has_source(record.source)
        )


_OTHER = {"live": "ended", "ended": "live"}


def shown(address: Address) -> str:
    """A wanted address as it is written, `ANY_PORT` left out."""
    return str(address) if address.port != ANY_PORT else address.ip


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


def parse_reason(text: str) -> Reason:
    """Read why connections ended.

    Raises:
        ValueError: it is none of the reasons that there are; the message names them.
    """
    try:
        return Reason(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of {', '.join(RECORDED)}") from None


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
