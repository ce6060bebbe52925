"""What others are told of unasked: where clients are pinned to, and which backends are down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from userproxy.backends.service import LiveService
    from userproxy.model.address import Address
    from userproxy.model.service import PoolName


class News:
    """Of the Service ports that a data plane serves. Lives as long as it does.

    Args:
        services: those, as they are served now.
        clock: monotonic seconds.

    Attributes:
        on_pins: called when `fresh_pins` has some that it had not.
        on_outage: called with the backends of a pool that are down, when these have changed.
    """

    def __init__(self, services: Mapping[PoolName, LiveService], clock: Callable[[], float]) -> None:
        self.on_pins: Callable[[], object] | None = None
        self.on_outage: Callable[[messages.Outage], object] | None = None
        self._services = services
        self._clock = clock
        self._freshly_pinned: set[PoolName] = set()
        self._down: dict[PoolName, tuple[Address, ...]] = {}  # as was told last

    def fresh_pins(self) -> list[messages.Pins]:
        """The pins that nobody has been told of. Costs nothing for the Services that have none."""
        now = self._clock()
        names, self._freshly_pinned = self._freshly_pinned, set()
        told = (
            messages.Pins(pool=name, pins=tuple(self._services[name].affinity.news(now)))
            for name in names
            if name in self._services
        )
        return [part for part in told if part.pins]

    def note_pin(self, service: LiveService) -> None:
        """A client was pinned."""
        is_first = not self._freshly_pinned
        self._freshly_pinned.add(service.pool.name)
        if is_first and self.on_pins is not None:
            self.on_pins()

    def note_change(self, service: LiveService) -> None:
        """The backends of a Service port may be down that were not, or others have taken their places."""
        name = service.pool.name
        if self._services.get(name) is not service:
            return
        down = tuple(live.address for live in service.backends if live not in service.rotation.first)
        if down == self._down.get(name, ()):
            return
        self._down[name] = down
        if not down:
            del self._down[name]
        if self.on_outage is not None:
            self.on_outage(messages.Outage(pool=name, backends=down))

    def forget(self, name: PoolName) -> None:
        """A Service port is served no longer."""
        if self._down.pop(name, ()) and self.on_outage is not None:
            self.on_outage(messages.Outage(pool=name, backends=()))
