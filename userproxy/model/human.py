"""Figures as a person reads them, on the command line and on the page."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIBI = 1024
_DECIMALS_BELOW = 10


def human_bytes(count: int) -> str:
    """A number of bytes in three digits or so: `0B`, `512B`, `1.2KiB`, `34MiB`."""
    if count < _KIBI:
        return f"{count}B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= _KIBI
        if size < _DECIMALS_BELOW - 0.05:
            return f"{size:.1f}{unit}"
        if round(size) < _KIBI:
            return f"{size:.0f}{unit}"
    return f"{size / _KIBI:.0f}PiB"


def human_age(seconds: float) -> str:
    """A duration by its two largest units: `0s`, `48s`, `3m12s`, `5h3m`, `2d4h`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR}h"
