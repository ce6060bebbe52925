"""What the values of kube-proxy's settings are here.

Each function takes a value from a file, or the text of a flag, and returns that of our setting, or None: as
if nobody had set it. What makes no sense raises ValueError with the reason.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from userproxy.config.values import quoted
from userproxy.model.service import Path

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_WILDCARDS = ("0.0.0.0", "[::]", "::")  # noqa: S104 - compared, not listened on
_DEBUG_VERBOSITY = 4
"""From where on Kubernetes' conventions call it debugging."""


def seconds(text: str) -> float | None:
    """A duration as Go writes it, `1h0m0s`, in seconds; None if it is none."""
    total, end = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != end:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    return total if end == len(text) and end else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not text: put it in quotes")  # noqa: TRY004 - of a file, not of a caller
    return value.strip()


def text(value: object) -> object | None:
    """As it is."""
    return _text(value) or None


def node_name(value: object) -> object | None:
    """kube-proxy writes it in lower case, too."""
    return _text(value).lower() or None


def host_ip(value: object) -> object | None:
    """The node's primary address; a wildcard leaves that open."""
    ip = _text(value)
    return None if not ip or ip in _WILDCARDS else ip


def serving(port: int) -> Callable[[object], object | None]:
    """An address to serve at: by default at this port; a wildcard is one of both families, as in Go."""

    def read(value: object) -> object | None:
        address = _text(value)
        try:
            bare = ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            pass
        else:
            address = f"[{bare}]:{port}" if ":" in str(bare) else f"{bare}:{port}"
        ip, _, number = address.rpartition(":")
        return (f":{number}" if ip in _WILDCARDS else address) or None

    return read


_MODES = {
    "userspace": Path.REDIRECT_TO_HOST,
    "iptables": Path.REDIRECT_TO_POD,
    "ipvs": Path.REDIRECT_TO_POD,
    "nftables": Path.REDIRECT_TO_POD,
}


def mode(value: object) -> object | None:
    """How bytes travel in that mode: through kube-proxy in its first one, by netfilter in the others."""
    name = _text(value)
    if not name or name in [path.value for path in Path]:
        return name or None
    if name not in _MODES:
        raise ValueError(f"{quoted(name)} is none of kube-proxy's modes on Linux: {', '.join(_MODES)}")
    return _MODES[name].value


def node_ports(value: object) -> object | None:
    """A list, in the file."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{quoted(value)} is not a list of texts")
    return ",".join(value) or None


def log_format(value: object) -> object | None:
    """`text` has another name here."""
    return {"": None, "text": "console"}.get(_text(value), value)


def verbosity(value: object) -> object | None:
    """The level of the log."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{quoted(value)} is not a whole number")  # noqa: TRY004 - of a file, not of a caller
    return "debug" if value >= _DEBUG_VERBOSITY else "info"


def port_range(value: object) -> object | None:
    """`FIRST-LAST`, `FIRST+MORE` or one port; `0-0` leaves it open."""
    ports = re.sub(r"\s", "", _text(value))
    if ports in ("", "0", "0-0"):
        return None
    if found := re.fullmatch(r"([0-9]{1,5})\+([0-9]{1,5})", ports):
        return f"{found[1]}-{int(found[1]) + int(found[2])}"
    return f"{ports}-{ports}" if ports.isdecimal() else ports


def udp_idle(value: object) -> object | None:
    """Seconds; of times below one it is as if nobody had set them."""
    found = seconds(_text(value))
    if found is None:
        raise ValueError(f"{quoted(value)} is not a duration such as 30s or 5m")
    return found if found >= 1 else None
