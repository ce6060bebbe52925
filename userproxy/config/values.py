"""A value that somebody has chosen for a setting: where it comes from, and whether it makes sense."""

from __future__ import annotations

import difflib
import enum
import math
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from userproxy.config.parse import (
    parse_bind_address,
    parse_host_ips,
    parse_networks,
    parse_node_ports,
    parse_port_range,
)
from userproxy.model.heartbeat import MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from userproxy.config.settings import Setting

_quoting = reprlib.Repr()
_quoting.maxstring = _quoting.maxother = 100
_NO_WORKERS = f"{{}} is not `auto` or a number from 1 to {MOST_WORKERS}"
_WORDS = {Path: "a path", str: "text", bool: "true or false", int: "a whole number", float: "a number"}


class Value(msgspec.Struct, frozen=True):
    """What was chosen.

    Attributes:
        value: as it was read from a file, or the text of a flag.
        origin: the place in a file, a flag, or a variable of the environment.
        key: what it is called there, if its origin does not say so.
        is_text: whether a text stands for what it can be read as, as on a command line.
    """

    value: object
    origin: str
    key: str = ""
    is_text: bool = False


class Mistake(msgspec.Struct, frozen=True):
    """Something that is wrong with the configuration.

    Attributes:
        origin: where; empty if it is nowhere in particular.
        key: which setting, if its origin does not say so.
        reason: what is wrong, and the remedy.
    """

    origin: str
    key: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.origin, self.key, self.reason)))


def quoted(value: object) -> str:
    """A value in a message, however long it is."""
    return _quoting.repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names what was probably meant; empty if nothing is near."""
    by_plain = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower().replace("_", "-"), by_plain, n=1)
    return f"did you mean {by_plain[near[0]]}?" if near else ""


def converted(setting: Setting, chosen: Value) -> Any:  # noqa: ANN401 - as many types as there are settings
    """The value in the setting's own type, checked.

    Raises:
        ValueError: it makes no sense; the message is the reason.
    """
    value = chosen.value
    if value == "" and setting.kinds == (Path,) and type(None) in get_args(setting.type):
        return None  # `--kubeconfig=` names none, as with kube-proxy
    if setting.many and isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    if isinstance(value, str) and str not in setting.kinds and Path not in setting.kinds:
        value = value.strip().lower()
    if value is False and any(
        issubclass(kind, enum.Enum) for kind in setting.kinds if isinstance(kind, type)
    ):
        value = "off"  # which YAML 1.1 takes for a boolean
    try:
        result = msgspec.convert(value, setting.type, strict=not chosen.is_text, dec_hook=_path)
    except msgspec.ValidationError:
        raise ValueError(_unfit(setting, chosen.value)) from None
    if check := _CHECKS.get(setting.field):
        check(result)
    return result


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    raise ValueError  # msgspec makes its own of it


def _unfit(setting: Setting, value: object) -> str:
    kind = setting.kinds[0]
    if issubclass(kind, enum.Enum):
        names = [each.value for each in kind]
        remedy = nearest(value, names) if isinstance(value, str) else ""
        return f"{quoted(value)} is none of {', '.join(names)}" + (f": {remedy}" if remedy else "")
    if len(setting.kinds) > 1:
        return _NO_WORKERS.format(quoted(value))
    if kind is str and isinstance(value, bool | int | float):
        return f"{quoted(value)} is not text: put it in quotes"
    if setting.many:
        return f"{quoted(value)} is not text with commas, or a list of texts"
    return f"{quoted(value)} is not {_WORDS[kind]}"


def _check_drain(seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} is not a number of seconds from 0 on")


def _check_linger(seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ValueError(f"{seconds} is not a number of seconds above 0")


def _check_udp_idle(seconds: float) -> None:
    if not 1 <= seconds < math.inf:
        raise ValueError(f"{seconds} is not seconds, from 1 on")


def _check_udp_sessions(count: int | None) -> None:
    if count is not None and count < 1:
        raise ValueError(f"{count} is not a number from 1 on")


def _check_per_service(count: int) -> None:
    if not 0 <= count <= MOST_PER_SERVICE:
        raise ValueError(f"{count} is not a number from 0 to {MOST_PER_SERVICE}")


def _check_orphan(seconds: float | None) -> None:
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"{seconds} is below 0")


def _check_workers(workers: int | str) -> None:
    if isinstance(workers, int) and not 1 <= workers <= MOST_WORKERS:
        raise ValueError(_NO_WORKERS.format(quoted(workers)))


def _check_recorded(count: int) -> None:
    if count < 0:
        raise ValueError(f"{count} is below 0")


def _check_access_log_file(file: Path | None) -> None:
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        what = "is a directory" if file.is_dir() else "is in no directory that exists"
        raise ValueError(f"{file} {what}: name a file, and make its directory first")


def _check_bind_address(address: str) -> None:
    if address:
        parse_bind_address(address)


MOST_PER_SERVICE = 1000
"""Service ports with series of their own: each has about ten, and they are rendered at every scrape."""

_CHECKS: dict[str, Callable[[Any], object]] = {
    "host_ip": parse_host_ips,
    "nodeport_addresses": parse_node_ports,
    "cluster_cidr": parse_networks,
    "port_range": parse_port_range,
    "drain_seconds": _check_drain,
    "linger_seconds": _check_linger,
    "udp_idle_seconds": _check_udp_idle,
    "udp_sessions": _check_udp_sessions,
    "orphan_seconds": _check_orphan,
    "metrics_per_service": _check_per_service,
    "workers": _check_workers,
    "recorded_connections": _check_recorded,
    "access_log_file": _check_access_log_file,
    "healthz_bind_address": _check_bind_address,
    "metrics_bind_address": _check_bind_address,
}
"""By field, what raises ValueError with the reason if a value of the right type makes no sense."""
