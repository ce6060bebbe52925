"""One element, as the kernel holds it."""

from __future__ import annotations

from typing import NamedTuple


class Element(NamedTuple):
    """One element that we add.

    Attributes:
        set: the name of the map or set.
        key: packed; of a range, where it begins.
        data: what is under the key, packed; empty in a set and in a map to chains.
        chain: where a map to chains leads; else empty.
        last: the last key of a range; else empty.
    """

    set: str
    key: bytes
    data: bytes = b""
    chain: str = ""
    last: bytes = b""


class ClientPin(NamedTuple):
    """One element that a rule has added: the pod that a client keeps.

    Attributes:
        map: its name.
        key: the client and the frontend, packed.
        data: the pod, packed.
        timeout: milliseconds that it had when it was new.
        left: milliseconds that it has.
    """

    map: str
    key: bytes
    data: bytes
    timeout: int
    left: int
