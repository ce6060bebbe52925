"""Host ports that stick to their Service ports.

A rule that points to a listener, a UDP flow that conntrack remembers and an operator's firewall all name a
host port. So a pool keeps its own for life: over every update, over deletion and re-creation, and
over a restart of the daemon, as long as the range is large enough to remember it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from userproxy.model.service import PoolName

if TYPE_CHECKING:
    from collections.abc import Iterable


class PortBook:
    """Who has which host port, and who had it last. Lives as long as the daemon.

    Every port of the range is in one of four states:

    - fresh: nobody ever had it;
    - live: a pool has it now;
    - idle: free, but remembered for the pool that had it, or found occupied before;
    - occupied: something else on the host has it.

    A new name gets the lowest fresh port, else the port that has been idle for the longest. A name is
    remembered only with a port, so the book never holds more names than the range has ports.

    Attributes:
        revision: another number after each change of what `dump` gives.
    """

    def __init__(self, ports: range) -> None:
        self._range = ports
        self._fresh = sorted(ports, reverse=True)
        self._live: dict[PoolName, int] = {}
        self._idle: OrderedDict[int, PoolName | None] = OrderedDict()
        self._remembered: dict[PoolName, int] = {}
        self._occupied: dict[int, None] = {}
        self._live_by_text: dict[str, int] = {}  # to write out 10,000 names takes milliseconds
        self.revision = 0

    @classmethod
    def load(cls, ports: range, saved: object) -> tuple[PortBook, tuple[str, ...]]:
        """A book that remembers what `dump` of an earlier one gave.

        Args:
            ports: the range to give ports from; it need not be the earlier one.
            saved: the mapping that `dump` gave, or whatever was found in its place.

        Returns:
            The book, all of its remembered ports idle, and a line for each entry that it had to ignore.
        """
        book = cls(ports)
        if not isinstance(saved, Mapping):
            return book, (f"saved host ports are not a mapping but {type(saved).__name__}: starting afresh",)
        ignored: list[str] = []
        for text, port in saved.items():
            complaint = book._remember(text, port)
            if complaint:
                ignored.append(f"saved host port {text!r}: {port!r} is ignored: {complaint}")
        book._fresh = [port for port in book._fresh if port not in book._idle]
        return book, tuple(ignored)

    def dump(self) -> dict[str, int]:
        """The port of each name, as `{"ns/name:port": 10400}`, the one to be given away first in front."""
        idle = {str(name): port for port, name in self._idle.items() if name is not None}
        return idle | self._live_by_text

    @property
    def range(self) -> range:
        """The ports that this book gives."""
        return self._range

    @property
    def live(self) -> Mapping[PoolName, int]:
        """The port of each name that has one now; a view that follows the book."""
        return MappingProxyType(self._live)

    @property
    def occupied(self) -> int:
        """How many of them something else on the host has."""
        return len(self._occupied)

    def assign(self, names: Iterable[PoolName]) -> dict[PoolName, int]:
        """Give each name its port.

        Names that are remembered get theirs first, then new ones get a port in the order of the names.

        Returns:
            The port of each name; names for which none is left are missing.
        """
        names = tuple(names)
        for name in names:
            if name in self._remembered:
                port = self._remembered.pop(name)
                del self._idle[port]
                self._give(name, port)
        assigned: dict[PoolName, int] = {}
        for name in names:
            if name not in self._live:
                free = self._take()
                if free is None:
                    continue
                self._give(name, free)
            assigned[name] = self._live[name]
        return assigned

    def release(self, names: Iterable[PoolName]) -> None:
        """Let other names have the ports of these, if no other is left; these come back to theirs till then.

        Only for names whose listener is closed. Names without a port are ignored.
        """
        for name in names:
            if name in self._live:
                port = self._take_back(name)
                self._idle[port] = name
                self._remembered[name] = port

    def mark_occupied(self, port: int) -> None:
        """Something else on the host has this port: whoever had it here gets another one when next assigned.

        A port out of the range is ignored.
        """
        if port not in self._range or port in self._occupied:
            return
        owner = self._idle.pop(port, None)
        if owner is not None:
            del self._remembered[owner]
        for name in [name for name, taken in self._live.items() if taken == port]:
            self._take_back(name)
        self._fresh = [fresh for fresh in self._fresh if fresh != port]
        self._occupied[port] = None
        self.revision += 1

    def retry_occupied(self) -> None:
        """Take the occupied ports for free again. Each is given only after all that were idle before."""
        for port in self._occupied:
            self._idle[port] = None
        self._occupied.clear()

    def _take(self) -> int | None:
        if self._fresh:
            return self._fresh.pop()
        if not self._idle:
            return None
        port, owner = self._idle.popitem(last=False)
        if owner is not None:
            del self._remembered[owner]
        return port

    def _give(self, name: PoolName, port: int) -> None:
        self._live[name] = self._live_by_text[str(name)] = port
        self.revision += 1

    def _take_back(self, name: PoolName) -> int:
        self.revision += 1
        del self._live_by_text[str(name)]
        return self._live.pop(name)

    def _remember(self, text: object, port: object) -> str:
        """Take over one saved entry, or say why not."""
        try:
            name = PoolName.parse(text) if isinstance(text, str) else None
        except ValueError:
            name = None
        if name is None:
            return "its name is not NAMESPACE/NAME or NAMESPACE/NAME:PORT"
        if not isinstance(port, int) or isinstance(port, bool):
            return "its port is not a number"
        if port not in self._range:
            return f"its port is out of the port range {self._range.start}-{self._range.stop - 1}"
        if port in self._idle:
            return f"its port belongs to {self._idle[port]}"
        if name in self._remembered:
            return f"it has port {self._remembered[name]} already"
        self._idle[port] = name
        self._remembered[name] = port
        return ""
