"""What clients' bytes come to, of live connections too, and of single Services if that is wanted.

The relay counts the bytes of each connection for itself. Here they are added up when a connection ends, and
for those that live when somebody asks: so that no byte costs more for being counted, and no total runs back.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from userproxy.model.endings import ENDINGS, Reason
from userproxy.model.metric import BETWEEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from userproxy.dataplane.connections import Relayed
    from userproxy.model.counters import Counters
    from userproxy.model.service import ServicePortName

_CHUNK = 100
_NOTHING = (0, 0)


class Traffic:
    """Adds up what connections carry. Lives as long as their table.

    Args:
        counters: of this process.

    Attributes:
        by_service: whether single Services are counted too.
    """

    def __init__(self, counters: Counters) -> None:
        self.by_service = False
        self._counters = counters
        self._told: dict[int, tuple[int, int]] = {}  # of live connections, what has been added up already

    def began(self, connection: Relayed) -> None:
        """A connection was accepted."""
        if self.by_service:
            self._counters.service_connections_opened[str(connection.service.pool.service)] += 1

    def inherited(self, connection: Relayed) -> None:
        """Another worker has counted what it carried so far."""
        self._told[connection.number] = connection.bytes_up, connection.bytes_down

    def ended(self, connection: Relayed) -> None:
        """It is over."""
        self._add(connection)
        self._told.pop(connection.number, None)
        reason = connection.reason
        if self.by_service and reason is not None and not ENDINGS[Reason(reason)].orderly:
            self._counters.service_failed_connections[str(connection.service.pool.service)] += 1

    def add_up(self, live: Iterable[Relayed]) -> Iterator[None]:
        """Add up what they have carried, in chunks: whoever asks yields to the loop in between."""
        left = iter(live)
        while chunk := list(islice(left, _CHUNK)):
            for connection in chunk:
                if connection.reason is None:  # or else it has ended meanwhile, and is counted
                    self._add(connection)
                    self._told[connection.number] = connection.bytes_up, connection.bytes_down
            yield

    def forget(self, service: ServicePortName) -> None:
        """A Service port is no more."""
        counters, name = self._counters, str(service)
        counters.service_connections_opened.pop(name, None)
        counters.service_failed_connections.pop(name, None)
        for direction in ("up", "down"):
            counters.service_relayed_bytes.pop(f"{name}{BETWEEN}{direction}", None)

    def _add(self, connection: Relayed) -> None:
        up, down = self._told.get(connection.number, _NOTHING)
        up, down = connection.bytes_up - up, connection.bytes_down - down
        counters = self._counters
        counters.relayed_bytes["up"] += up
        counters.relayed_bytes["down"] += down
        if self.by_service:
            name = str(connection.service.pool.service)
            counters.service_relayed_bytes[f"{name}{BETWEEN}up"] += up
            counters.service_relayed_bytes[f"{name}{BETWEEN}down"] += down
