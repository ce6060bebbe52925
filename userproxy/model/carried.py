"""What is known of the end of a connection that the kernel carried. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from userproxy.model.address import Address


class How(enum.Enum):
    """How it ended, as far as conntrack tells."""

    CLIENT_FIRST = enum.auto()
    """Both sides have finished, the client first."""
    BACKEND_FIRST = enum.auto()
    """Likewise, the backend first."""
    RESET = enum.auto()
    """One of them has reset it."""
    EXPIRED = enum.auto()
    """The time of its entry was over, without a packet."""
    DELETED = enum.auto()
    """A process has deleted its entry."""


class Counts(NamedTuple):
    """What it carried, where the kernel counts; bytes with IP headers."""

    packets_up: int
    bytes_up: int
    packets_down: int
    bytes_down: int


class End(NamedTuple):
    """The end of one.

    Attributes:
        how: it ended.
        number: the kernel's; a later connection of the same client's port may have the same.
        source: the client as the backend saw it; None: by its own address.
        counts: what it carried; None: that is not told.
    """

    how: How
    number: int
    source: Address | None = None
    counts: Counts | None = None
