"""What a connection is called: in listings, in log lines, and for `userproxy kill`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

KERNEL_PREFIX = "ct-"
"""Before the kernel's number of a connection that it carries, so that no id is also one of a relayed one."""

# More than a pid or the number of a connection has.
_DIGITS = 19


class ConnectionId(NamedTuple):
    """The worker that carries it, and which of that worker's connections it is.

    Written `PID-NUMBER`. The pid is what the worker itself calls it: from another container it may have
    another one, or none. Where two containers' workers have the same, the later one has another number.
    """

    pid: int
    number: int

    def __str__(self) -> str:
        return f"{self.pid}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> ConnectionId | None:
        """Read one; None if it is no such name, as those of connections that only the kernel knows."""
        pid, _, number = text.partition("-")
        if not (_is_number(pid) and _is_number(number)):
            return None
        return cls(int(pid), int(number))


def numbers_of(ids: Iterable[ConnectionId | None], pid: int) -> tuple[int, ...]:
    """The numbers of those connections that are this worker's."""
    return tuple(one.number for one in ids if one is not None and one.pid == pid)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS
