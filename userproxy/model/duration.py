"""Durations as people write them: a number with a unit. Pure."""

from __future__ import annotations

import re

EXAMPLES = "a duration such as 250ms, 30s or 5m"

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str, units: str = "ms|s|m|h") -> float:
    """Read `250ms`, `30s`, `5m`, `1h`; returns seconds.

    Args:
        text: to read.
        units: those that may be used.

    Raises:
        ValueError: it is no such thing; the message says what is.
    """
    found = _DURATION.fullmatch(text)
    if not found or found[2] not in units.split("|"):
        raise ValueError(EXAMPLES)
    return float(found[1]) * _UNITS[found[2]]
