"""What the author of a Service may choose for it, by the annotations of `userproxy.sources.annotations`."""

from __future__ import annotations

import enum

import msgspec


class Balance(enum.StrEnum):
    """Who takes the next connection. The values are those of the annotation."""

    ROUND_ROBIN = "round-robin"
    """Each in turn; the turn survives updates."""

    LEAST_CONNECTIONS = "least-connections"
    """The one with the fewest live connections."""

    RANDOM_TWO = "random-two"
    """Of two at random, the one with fewer live connections."""

    SOURCE_HASH = "source-hash"
    """A client IP always gets the same backend while that one can be reached, over restarts too."""


class HealthCheck(enum.StrEnum):
    """How backends are checked. The values are those of the annotation."""

    AUTO = "auto"
    """A TCP connect, while the Service has traffic on this node."""

    TCP = "tcp"
    """A TCP connect."""

    HTTP = "http"
    """An HTTP GET."""

    OFF = "off"
    """Not at all: only clients' own connections tell."""


class NoEndpoints(enum.StrEnum):
    """What becomes of clients while there are no endpoints. The values are those of the annotation."""

    REJECT = "reject"
    """They are refused at once."""

    HOLD = "hold"
    """They wait for an endpoint, for a bounded time."""


class ProxyProtocol(enum.StrEnum):
    """How a backend is told who its client is. The values are those of the annotation."""

    OFF = "off"
    """Not at all."""

    V1 = "v1"
    """By a line of text before the client's first byte."""

    V2 = "v2"
    """By a binary header there, which names the connection and the Service too."""


class SourceAddress(enum.StrEnum):
    """Whose address connections to backends come from. The values are those of the annotation."""

    NODE = "node"
    """This node's."""

    CLIENT = "client"
    """The client's own, where the answers come back through this node; else this node's."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An active check.

    Attributes:
        kind: what is done.
        path: of the HTTP request.
        status: ranges of HTTP status codes that are healthy, both ends included.
        interval: seconds between two checks of one backend.
        timeout: seconds for one check.
        rise: passed checks in a row that bring a backend back.
        fall: failed checks in a row that take it out.
        proxy_protocol: what the backend expects each connection to begin with.
    """

    kind: HealthCheck = HealthCheck.AUTO
    path: str = "/"
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    interval: float = 5.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the author of a Service chose. Times are in seconds; None is off.

    Attributes:
        balance: who takes the next connection.
        slow_start: how long a new backend's share grows.
        check: of the backends.
        hedged_dial: how long the first dial has the field to itself.
        max_connection_age: after which a connection is reset, give or take `AGE_JITTER`.
        max_connections: live ones of the Service port on this node; over it, accepting waits.
        max_connections_per_client: live ones of one client IP at each worker; one more is reset.
        close_on_removal: how long a connection may go on after its backend was removed.
        no_endpoints: what becomes of clients while there are none.
        hold_connections: clients that may wait on this node for the Service port to have endpoints; one more
            is reset.
        hold_timeout: how long a client may wait.
        proxy_protocol: how backends are told who their client is.
        accept_proxy_protocol: networks in CIDR notation of balancers in front, whose connections begin by
            telling who the client is.
        source_address: whose address TCP connections to backends come from.
        udp_idle: how long a UDP client's session may carry nothing; None leaves it to the daemon.
        fall_open: whether new connections go straight to the pods while no worker accepts them; otherwise
            nobody answers. None leaves it to the daemon.
    """

    balance: Balance = Balance.ROUND_ROBIN
    slow_start: float | None = None
    check: Check = Check()
    hedged_dial: float | None = None
    max_connection_age: float | None = None
    max_connections: int | None = None
    max_connections_per_client: int | None = None
    close_on_removal: float | None = None
    no_endpoints: NoEndpoints = NoEndpoints.REJECT
    hold_connections: int = 16
    hold_timeout: float = 120.0
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    accept_proxy_protocol: tuple[str, ...] = ()
    source_address: SourceAddress = SourceAddress.NODE
    udp_idle: float | None = None
    fall_open: bool | None = None

    @property
    def needs_relay(self) -> bool:
        """Whether only a listener of ours can do what is asked: the kernel neither says nor hears a word."""
        return self.proxy_protocol is not ProxyProtocol.OFF or bool(self.accept_proxy_protocol)


AGE_JITTER = 0.1
"""The share of a connection's maximum age by which it varies, so that not all of them end at once."""
