"""The parts of docs/metrics.md that are made of the code: tables of all that `/metrics` shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from userproxy.model.counters import Counters
from userproxy.model.figures import Figures, Moments
from userproxy.model.metric import FAMILY, Declared, declared

if TYPE_CHECKING:
    import msgspec

_PART = re.compile(r"(<!-- made: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_STRUCTS: tuple[type[msgspec.Struct], ...] = (Figures, Counters, Moments)
_OURS = "userproxy_"


def renewed(page: str) -> str:
    """A page with its marked parts made anew: what stands from `<!-- made: NAME -->` to `<!-- end -->`."""
    parts = {"ours": _table(ours=True), "per-service": _table(ours=True, single=True)}
    parts["kube-proxy"] = _table(ours=False)
    return _PART.sub(lambda part: f"{part[1]}\n{parts[part[2]]}\n\n{part[3]}", page)


def names() -> dict[str, str]:
    """Every metric by the name that queries have, with its type; of a histogram those of its three series."""
    found: dict[str, str] = {}
    for struct in _STRUCTS:
        for one in declared(struct):
            kind = _kind(struct, one)
            if kind == "histogram":
                found |= {f"{one.name}{suffix}": kind for suffix in ("_bucket", "_sum", "_count")}
            else:
                found[_shown(struct, one)] = kind
    return found


def _table(*, ours: bool, single: bool = False) -> str:
    lines = ["| metric | type | labels | what it is |", "| --- | --- | --- | --- |"]
    for struct in _STRUCTS:
        for one in declared(struct):
            if one.name.startswith(_OURS) is ours and one.metric.per_service is single:
                cells = (f"`{_shown(struct, one)}`", _kind(struct, one), _labels(one), one.metric.help)
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(struct: type[msgspec.Struct], one: Declared) -> str:
    return f"{one.name}_total" if _kind(struct, one) == "counter" else one.name


def _kind(struct: type[msgspec.Struct], one: Declared) -> str:
    if one.histogram is not None:
        return "histogram"
    if struct is Counters:
        return "counter"
    return "untyped" if one.metric.untyped else "gauge"


def _labels(one: Declared) -> str:
    """Each label; where the values are a closed set, these too."""
    labels, keys = one.metric.labels, one.metric.keys
    values = dict.fromkeys(labels, "")
    closed = [label for label in labels if label != FAMILY]
    if keys and len(closed) == 1:
        values[closed[0]] = ": " + ", ".join(keys)
    return "; ".join(f"`{label}`{values[label]}" for label in labels)
