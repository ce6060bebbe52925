"""What the author of a Service may choose for it, by annotations on the Service.

| `userproxy.dev/...` | values | default | what it does |
|---|---|---|---|
| `balance` | `round-robin`, `least-connections`, `random-two`, `source-hash` | `round-robin` | who takes the next connection |
| `slow-start` | duration, `off` | `off` | a new backend's share grows from 10 % to 100 % over this time |
| `health-check` | `auto`, `tcp`, `http`, `off` | `auto` | `auto`: a TCP connect, while the Service has traffic; the others: always |
| `health-check-path` | a path from `/` on | `/` | of the HTTP GET |
| `health-check-status` | `200-399`, `200`, `200-299,404` | `200-399` | the answers that are healthy |
| `health-check-interval` | duration from 100 ms on | `5s` | between two checks of a backend; a second at most while its state is in doubt |
| `health-check-timeout` | duration | `1s` | for the whole check |
| `health-check-rise` | 1 to 100 | `2` | checks that must pass in a row to bring a backend back |
| `health-check-fall` | 1 to 100 | `3` | checks that must fail in a row to take it out |
| `hedged-dial` | duration, `off` | `off` | dial a second backend too if the first has not answered by then; the winner is taken |
| `max-connection-age` | duration, `off` | `off` | reset connections of this age, give or take 10 % |
| `max-connections` | 1 or more, `off` | `off` | of the Service on this node; over it, accepting waits |
| `max-connections-per-client` | 1 or more, `off` | `off` | of one client IP, as each worker counts; one more is reset |
| `close-on-removal` | duration, `off` | `off` | reset a connection so long after its pod is gone; `off`: it may go on |

A duration is a number with a unit, `250ms`, `30s`, `5m` or `1h`.
"""  # noqa: E501 (a table)

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
    """

    kind: HealthCheck = HealthCheck.AUTO
    path: str = "/"
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    interval: float = 5.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3


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
    """

    balance: Balance = Balance.ROUND_ROBIN
    slow_start: float | None = None
    check: Check = Check()
    hedged_dial: float | None = None
    max_connection_age: float | None = None
    max_connections: int | None = None
    max_connections_per_client: int | None = None
    close_on_removal: float | None = None


AGE_JITTER = 0.1
"""The share of a connection's maximum age by which it varies, so that not all of them end at once."""
