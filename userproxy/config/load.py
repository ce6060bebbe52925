"""The configuration is put together from flags and a file, and checked, all of it at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from userproxy.config import document, kube_proxy, node
from userproxy.config.parse import parse_host_ips
from userproxy.config.settings import Config, Settings, declared
from userproxy.config.values import Mistake, Value, converted, nearest, quoted
from userproxy.model.address import IpFamily, family_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DEFAULT, THIS_NODE = "default", "this node"


class ConfigError(ValueError):
    """The configuration is wrong.

    Attributes:
        mistakes: a line for each: where, what, and the remedy.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class Reading(msgspec.Struct, frozen=True):
    """What is wanted, whether it makes sense or not, and whatever the node lacks for it.

    Attributes:
        settings: with the defaults in the place of what makes no sense.
        chosen: by field, what was chosen.
        mistakes: what makes no sense, in the order of the file, then of the flags.
        warnings: what else to know.
    """

    settings: Settings
    chosen: Mapping[str, Value]
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()


def load(
    flags: Mapping[str, object], file: Path | None, kube_proxy_flags: Mapping[str, str] | None = None
) -> Config:
    """Put the configuration together: flags win over the file, the file over the defaults.

    Args:
        flags: by field name, those that were given: a value of the setting's type, or a `Value`.
        file: YAML with the fields in kebab-case, or a configuration of kube-proxy; or None.
        kube_proxy_flags: those that kube-proxy has and we do not, by name, each with its text.

    Raises:
        ConfigError: something is wrong with it.
    """
    reading = read(flags, file, kube_proxy_flags)
    missing = lacks(reading.settings, reading.chosen)
    if reading.mistakes or missing:
        raise ConfigError(*map(str, (*reading.mistakes, *missing)))
    return complete(reading)


def read(
    flags: Mapping[str, object], file: Path | None, kube_proxy_flags: Mapping[str, str] | None = None
) -> Reading:
    """Read what is wanted, as `load` does, and leave the node that it is for out of it."""
    mistakes: list[Mistake] = []
    idle: list[str] = []
    chosen: dict[str, Value] = {}
    if file:
        chosen |= _of_file(file, mistakes, idle)
    theirs = kube_proxy.of_flags(kube_proxy_flags or {})
    mistakes += theirs.mistakes
    idle += theirs.idle
    ours = {name: _given(name, value) for name, value in flags.items() if value is not None}
    for name in theirs.values.keys() & ours.keys():
        both = f"{theirs.values[name].origin} and {ours[name].origin}"
        mistakes.append(Mistake(both, "", "are the same setting: leave one of them out"))
    chosen |= theirs.values | ours
    values: dict[str, Any] = {}
    for setting in declared():
        if setting.field in chosen:
            value = chosen[setting.field]
            try:
                values[setting.field] = converted(setting, value)
            except ValueError as error:
                mistakes.append(Mistake(value.origin, value.key, str(error)))
    settings = Settings(**values)
    if settings.manifests and settings.kubeconfig:
        both = f"{_told(chosen['manifests'])} and {_told(chosen['kubeconfig'])}"
        mistakes.append(Mistake(both, "", "Services come from one of the two, leave the other out"))
    return Reading(settings, chosen, _in_order(mistakes), kube_proxy.warning(idle))


def lacks(settings: Settings, chosen: Mapping[str, Value]) -> tuple[Mistake, ...]:
    """What this node lacks for these settings."""
    found = list(lacks_source(settings))
    named = parse_host_ips(settings.host_ip)
    for ip in named:
        if not node.is_own_address(ip):
            reason = f"{ip} is not an address of this node: choose one that `ip address` shows"
            found.append(Mistake(chosen["host_ip"].origin, chosen["host_ip"].key, reason))
    if not named and not any(map(node.primary_address, IpFamily)):
        reason = (
            "this node has no default route to take its primary address from: name the address with --host-ip"
        )
        found.append(Mistake("", "host-ip", reason))
    return tuple(found)


def lacks_source(settings: Settings) -> tuple[Mistake, ...]:
    """That there is nothing to take Services from, if so."""
    if settings.manifests or settings.kubeconfig or node.has_service_account():
        return ()
    reason = (
        "nothing to take Services from: name a file or directory with --manifests PATH, or an API server "
        "with --kubeconfig PATH, or run as a pod with a ServiceAccount"
    )
    return (Mistake("", "", reason),)


def complete(reading: Reading) -> Config:
    """Fill in what this node says."""
    settings = reading.settings
    named = parse_host_ips(settings.host_ip)
    following = tuple(family for family in IpFamily if family not in map(family_of, named))
    host_ips = [*named, *filter(None, map(node.primary_address, following))]
    origins = {setting.field: DEFAULT for setting in declared()}
    if not settings.node_name:
        origins["node_name"] = THIS_NODE
    if not named:
        origins["host_ip"] = THIS_NODE
    filled_in = {
        "host_ip": ",".join(host_ips),
        "host_ip_follows": following,
        "node_name": settings.node_name or node.host_name(),
        "origins": origins | {name: _told(value) for name, value in reading.chosen.items()},
        "warnings": reading.warnings,
    }
    return Config(**{**msgspec.structs.asdict(settings), **filled_in})


def _in_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Those of a file first, as they stand in it."""

    def place(mistake: Mistake) -> tuple[bool, list[int]]:
        file, *numbers = mistake.origin.rsplit(":", 2)
        return not file or file.startswith("-"), [int(each) for each in numbers if each.isdecimal()]

    return tuple(sorted(mistakes, key=place))


def _given(name: str, value: object) -> Value:
    return value if isinstance(value, Value) else Value(value, f"--{name.replace('_', '-')}")


def _told(value: Value) -> str:
    return f"{value.origin} {value.key}".strip()


def _of_file(file: Path, mistakes: list[Mistake], idle: list[str]) -> dict[str, Value]:
    """What a file chooses, ours or kube-proxy's."""
    try:
        found = document.read(file)
    except document.UnreadableError as error:
        mistakes.append(error.mistake)
        return {}
    mistakes += (Mistake(found.origin(keys), ".".join(keys), "stands there twice") for keys in found.twice)
    if kube_proxy.is_ours(found.content):
        return _of_ours(found, mistakes)
    theirs = kube_proxy.of_document(found)
    mistakes += theirs.mistakes
    idle += theirs.idle
    return theirs.values


def _of_ours(found: document.Document, mistakes: list[Mistake]) -> dict[str, Value]:
    fields = {setting.key: setting.field for setting in declared()}
    chosen: dict[str, Value] = {}
    for key, value in found.content.items():
        origin = found.origin((key,))
        if key not in fields:
            remedy = _remedy(key, fields)
            mistakes.append(Mistake(origin, "", f"there is no setting {quoted(key)[1:-1]}: {remedy}"))
        elif value is not None:
            chosen[fields[key]] = Value(value, origin, key)
    return chosen


def _remedy(key: str, known: Iterable[str]) -> str:
    return nearest(key, known) or "`userproxy run --help` lists them"
