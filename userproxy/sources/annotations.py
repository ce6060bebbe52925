"""Annotations of a Service become its settings. Pure.

A value that cannot be meant becomes a `Problem` that names the annotation, the value and what is allowed; the
default takes its place, and the Service is served. `ANNOTATIONS` declares each of them, once; the defaults
are those of `userproxy.model.settings`.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from userproxy.model.duration import parse_duration
from userproxy.model.service import Path
from userproxy.model.settings import (
    AGE_JITTER,
    Balance,
    Check,
    HealthCheck,
    NoEndpoints,
    ProxyProtocol,
    Settings,
    SourceAddress,
)
from userproxy.model.snapshot import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_E = TypeVar("_E", bound=enum.StrEnum)

PREFIX = "userproxy.dev/"

_DEFAULT = Settings()
_OFF = "off"
_LONGEST = 30 * 24 * 3600.0
_SHORTEST = 0.001
_SHORTEST_INTERVAL = 0.1
_SHORTEST_UDP_IDLE = 1.0
_MOST_IN_A_ROW = 100
_MOST_CONNECTIONS = 10_000_000
_MOST_HELD = 1000
_MOST_NETWORKS = 64
_HTTP_PATH = re.compile(r"/[!-~]{0,1023}")
_TRUTHS = {"true": True, "false": False}
_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")


_T = TypeVar("_T")
_D = TypeVar("_D")


class _Reader:
    """Reads annotations of our domain, and collects what is wrong with them."""

    def __init__(self, annotations: Mapping[str, object], about: str, problems: list[Problem]) -> None:
        self._values = {
            key.removeprefix(PREFIX): value for key, value in annotations.items() if key.startswith(PREFIX)
        }
        self._about = about
        self._problems = problems

    def read(self, name: str, parse: Callable[[str], _T], default: _D) -> _T | _D:
        """The value of an annotation; the default if it is missing or wrong."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self._complain(name, f"{_quoted(value)} is not a string: put it in quotes")
            return default
        try:
            return parse(value.strip())
        except ValueError as failure:
            self._complain(name, f"{_quoted(value)} is not {failure}")
            return default

    def complain_of_strangers(self) -> None:
        """Tell of names that are none of ours: most likely a slip of the pen."""
        for name in sorted(self._values.keys() - {annotation.name for annotation in ANNOTATIONS}):
            message = f"annotation {PREFIX}{name[:100]} is unknown, and has no effect: correct or remove it"
            self._problems.append(Problem(self._about, "BadAnnotation", message))

    def _complain(self, name: str, fault: str) -> None:
        message = f"annotation {PREFIX}{name}: {fault}; the default is used"
        self._problems.append(Problem(self._about, "BadAnnotation", message))


def _quoted(value: object) -> str:
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 100 else f"{text[:100]}..."  # noqa: PLR2004 - as much as one line takes


def _one_of(choices: type[_E]) -> Callable[[str], _E]:
    def parse(text: str) -> _E:
        try:
            return choices(text)
        except ValueError:
            raise ValueError(f"one of {', '.join(choices)}") from None

    return parse


def _or_off(parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    def parse_or_off(text: str) -> _T | None:
        if text == _OFF:
            return None
        try:
            return parse(text)
        except ValueError as failure:
            raise ValueError(f"{failure}, or {_OFF}") from None

    return parse_or_off


def _duration(least: float = _SHORTEST) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not least <= seconds <= _LONGEST:
            raise ValueError(f"between {least * 1000:g}ms and {_LONGEST / 3600:g}h")
        return seconds

    return parse


def _count(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise ValueError(f"a whole number from 1 to {most}")
        return int(text)

    return parse


_limit = _count(_MOST_CONNECTIONS)


def _yes_or_no(text: str) -> bool:
    if text not in _TRUTHS:
        raise ValueError("true or false")
    return _TRUTHS[text]


def _http_path(text: str) -> str:
    if not _HTTP_PATH.fullmatch(text):
        raise ValueError("a path such as /healthz, of at most 1024 characters without spaces")
    return text


def _status(text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        found = _STATUS.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise ValueError("HTTP status codes such as 200-399 or 200,404")
        ranges.append((first, last))
    return tuple(ranges)


def _networks(text: str) -> tuple[str, ...]:
    try:
        networks = tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(","))
    except ValueError:
        networks = ()
    if not 1 <= len(networks) <= _MOST_NETWORKS:
        raise ValueError(f"1 to {_MOST_NETWORKS} networks such as 192.0.2.0/24,2001:db8::/64")
    return networks


class Annotation(NamedTuple):
    """What an annotation is called, which values it takes, and what becomes of them.

    Attributes:
        name: behind the prefix.
        field: of `Settings`; `check.` before one of its `Check`. Empty: none of them.
        parse: reads a value; its `ValueError` completes "... is not".
        values: that it takes, as a table has them.
        text: what it does, likewise.
    """

    name: str
    field: str
    parse: Callable[[str], object]
    values: str
    text: str

    @property
    def default(self) -> object:
        """What takes its place where it is missing."""
        kind, _, name = self.field.rpartition(".")
        return getattr(_DEFAULT.check if kind else _DEFAULT, name)


def _options(choices: type[enum.StrEnum]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)


PATH = Annotation("path", "", _one_of(Path), _options(Path), "how the Service's bytes travel")

_CHOSEN = (
    Annotation("balance", "balance", _one_of(Balance), _options(Balance), "who takes the next connection"),
    Annotation(
        "slow-start",
        "slow_start",
        _or_off(_duration()),
        "duration, `off`",
        "a new backend's share grows from 10 % to 100 % over this time",
    ),
    Annotation(
        "health-check",
        "check.kind",
        _one_of(HealthCheck),
        _options(HealthCheck),
        "`auto`: a TCP connect, while the Service has traffic; the others: always",
    ),
    Annotation("health-check-path", "check.path", _http_path, "a path from `/` on", "of the HTTP GET"),
    Annotation(
        "health-check-status",
        "check.status",
        _status,
        "`200-399`, `200`, `200-299,404`",
        "the answers that are healthy",
    ),
    Annotation(
        "health-check-interval",
        "check.interval",
        _duration(_SHORTEST_INTERVAL),
        "duration from 100 ms on",
        "between two checks of a backend; a second at most while its state is in doubt",
    ),
    Annotation("health-check-timeout", "check.timeout", _duration(), "duration", "for the whole check"),
    Annotation(
        "health-check-rise",
        "check.rise",
        _count(_MOST_IN_A_ROW),
        f"1 to {_MOST_IN_A_ROW}",
        "checks that must pass in a row to bring a backend back",
    ),
    Annotation(
        "health-check-fall",
        "check.fall",
        _count(_MOST_IN_A_ROW),
        f"1 to {_MOST_IN_A_ROW}",
        "checks that must fail in a row to take it out",
    ),
    Annotation(
        "hedged-dial",
        "hedged_dial",
        _or_off(_duration()),
        "duration, `off`",
        "dial a second backend too if the first has not answered by then; the winner is taken",
    ),
    Annotation(
        "max-connection-age",
        "max_connection_age",
        _or_off(_duration()),
        "duration, `off`",
        f"reset connections of this age, give or take {AGE_JITTER:.0%}".replace("%", " %"),
    ),
    Annotation(
        "max-connections",
        "max_connections",
        _or_off(_limit),
        "1 or more, `off`",
        "of the Service on this node; over it, accepting waits. On other paths one more is refused",
    ),
    Annotation(
        "max-connections-per-client",
        "max_connections_per_client",
        _or_off(_limit),
        "1 or more, `off`",
        "of one client IP, as each worker counts; one more is reset. On other paths it is refused",
    ),
    Annotation(
        "close-on-removal",
        "close_on_removal",
        _or_off(_duration()),
        "duration, `off`",
        "reset a connection so long after its pod is gone; `off`: it may go on",
    ),
    Annotation(
        "no-endpoints",
        "no_endpoints",
        _one_of(NoEndpoints),
        _options(NoEndpoints),
        "`hold`: TCP clients wait for an endpoint, on every path",
    ),
    Annotation(
        "hold-connections",
        "hold_connections",
        _count(_MOST_HELD),
        f"1 to {_MOST_HELD}",
        "that may wait, of the Service on this node; one more is reset",
    ),
    Annotation("hold-timeout", "hold_timeout", _duration(), "duration", "how long a client may wait"),
    Annotation(
        "proxy-protocol",
        "proxy_protocol",
        _one_of(ProxyProtocol),
        _options(ProxyProtocol),
        "tell TCP backends the client's address in a header of the PROXY protocol; they must expect it",
    ),
    Annotation(
        "accept-proxy-protocol",
        "accept_proxy_protocol",
        _networks,
        "networks",
        "of load balancers in front, whose TCP connections must begin with such a header",
    ),
    Annotation(
        "source-address",
        "source_address",
        _one_of(SourceAddress),
        _options(SourceAddress),
        "`client`: TCP backends see the client's own address, where their answers come back through the node",
    ),
    Annotation(
        "udp-idle",
        "udp_idle",
        _duration(_SHORTEST_UDP_IDLE),
        "duration from 1 s on",
        "a UDP client of which nothing was heard, nor its pod, for so long may get another pod",
    ),
    Annotation(
        "fall-open",
        "fall_open",
        _yes_or_no,
        "`true`, `false`",
        "new connections go straight to the pods while the relay is away; `false`: they are refused",
    ),
)

ANNOTATIONS = (PATH, *_CHOSEN)
"""All annotations, in the order of the table in docs/services.md."""


def read_path(annotations: Mapping[str, object], about: str, problems: list[Problem]) -> Path | None:
    """The path that a Service chooses; None leaves it to the daemon.

    Args:
        annotations: all of the Service's.
        about: whose they are, `ns/name`.
        problems: what is wrong with them is added here.
    """
    return _Reader(annotations, about, problems).read(PATH.name, _one_of(Path), None)


def read_settings(annotations: Mapping[str, object], about: str, problems: list[Problem]) -> Settings:
    """The settings of a Service. The arguments are those of `read_path`."""
    reader = _Reader(annotations, about, problems)
    reader.complain_of_strangers()
    chosen: dict[str, Any] = {}
    check: dict[str, Any] = {}
    for one in _CHOSEN:
        kind, _, field = one.field.rpartition(".")
        (check if kind else chosen)[field] = reader.read(one.name, one.parse, one.default)
    check["proxy_protocol"] = chosen["proxy_protocol"]
    return Settings(check=Check(**check), **chosen)
