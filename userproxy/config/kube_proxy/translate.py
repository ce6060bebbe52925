"""From kube-proxy's file and flags to our settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from userproxy.config.kube_proxy.fields import DANGEROUS, FIELDS, Field
from userproxy.config.values import Mistake, Value, nearest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from userproxy.config.document import Document, Keys

GROUP = "kubeproxy.config.k8s.io"
KIND = "KubeProxyConfiguration"
VERSION = f"{GROUP}/v1alpha1"

_HEAD = ("apiVersion", "kind")
_BY_PATH = {field.path: field for field in FIELDS if field.path}
_SECTIONS = {path.rpartition(".")[0] for path in _BY_PATH} | {"logging.options"}
_BY_FLAG = {field.flag: field for field in FIELDS if field.flag}
_BY_THE_NODE = "NodeCIDR"


class Translation(msgspec.Struct):
    """What kube-proxy's configuration comes to.

    Attributes:
        values: by field of `Settings`.
        idle: names, of what is set there and means nothing here.
        mistakes: what makes no sense.
    """

    values: dict[str, Value] = {}
    idle: list[str] = []
    mistakes: list[Mistake] = []

    def take(self, field: Field, value: object, origin: str, name: str, *, is_text: bool) -> None:
        """Take one of its settings over."""
        if field.is_default(value):
            return
        if not field.setting:
            self.idle.append(name)
            return
        key = "" if is_text else name
        try:
            found = field.read(value)
        except ValueError as error:
            self.mistakes.append(Mistake(origin, key, str(error)))
            return
        if found is not None:
            self.values[field.setting] = Value(found, origin, key, is_text=is_text)
        elif field.setting == "udp_idle_seconds":
            self.idle.append(name)


def warning(idle: Sequence[str]) -> tuple[str, ...]:
    """One line that names what means nothing here; none if there is nothing."""
    return (f"set for kube-proxy, and without effect here: {', '.join(idle)}",) if idle else ()


def is_ours(content: Mapping[str, Any]) -> bool:
    """Whether this is a file of userproxy's own: it says nowhere that it is something else."""
    return not any(name in content for name in _HEAD)


def of_document(document: Document) -> Translation:
    """Take over what a `KubeProxyConfiguration` says."""
    found = Translation()
    version, kind = (document.content.get(name, "") for name in ("apiVersion", "kind"))
    if kind != KIND or version != VERSION:
        at = ("apiVersion",) if kind == KIND else ("kind",)
        reason = (
            f"{quoted(kind)} of {quoted(version)} is not understood: only {KIND} of {VERSION} is, and a "
            "ConfigMap with one"
        )
        found.mistakes.append(Mistake(document.origin(at), at[0], reason))
        return found
    for keys, value in _leaves(document.content, ()):
        path, origin = ".".join(keys), document.origin(keys)
        field = _BY_PATH.get(path)
        if field:
            found.take(field, value, origin, path, is_text=False)
        elif path in _SECTIONS and value is not None:
            found.mistakes.append(Mistake(origin, path, f"{quoted(value)} is not a mapping"))
        elif path not in (*_SECTIONS, *_HEAD):
            # As kube-proxy does: a newer one may know it.
            remedy = nearest(path, _BY_PATH)
            found.idle.append(f"{path} ({origin}: kube-proxy has no such setting{remedy and ': '}{remedy})")
    if document.content.get("detectLocalMode") == _BY_THE_NODE:
        found.values.pop("cluster_cidr", None)
    return found


def of_flags(given: Mapping[str, str]) -> Translation:
    """Take over what flags of kube-proxy say: by flag, its text."""
    found = Translation()
    for flag, text in given.items():
        dashes = "-" if len(flag) == 1 else "--"
        if flag in DANGEROUS:
            if text != "false":
                reason = f"is a flag of kube-proxy that userproxy does not have: {DANGEROUS[flag]}"
                found.mistakes.append(Mistake(f"{dashes}{flag}", "", reason))
            continue
        found.take(_BY_FLAG[flag], text, f"{dashes}{flag}", f"{dashes}{flag}", is_text=True)
    return found


def _leaves(content: Mapping[str, Any], above: Keys) -> Iterator[tuple[Keys, object]]:
    """Everything that stands in the sections that kube-proxy has, with the keys on the way."""
    for key, value in content.items():
        keys = (*above, str(key))
        if isinstance(value, dict) and ".".join(keys) in _SECTIONS:
            yield from _leaves(value, keys)
        else:
            yield keys, value
