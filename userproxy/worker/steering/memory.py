"""What a steering process knows that its successor is to know: where clients are pinned to, how pods are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.backends import judgements
from userproxy.dataplane.news import News
from userproxy.model import messages
from userproxy.model.heritage import Judgement

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from userproxy.backends.service import LiveService
    from userproxy.model.address import Address
    from userproxy.model.service import PoolName

IN_ONE_MESSAGE = 1000
_NEWS_SECONDS = 0.05


class Memory:
    """Tells the control side what is new, for when this process is no more. Lives as long as it.

    Args:
        loop: that drives it.
        services: as they are steered now.
        clock: monotonic seconds.
        say: tells the control side, if there is one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        services: Mapping[PoolName, LiveService],
        clock: Callable[[], float],
        say: Callable[[messages.Parts], object],
    ) -> None:
        self._loop = loop
        self._services = services
        self._clock = clock
        self._say = say
        self._news = News(services, clock)
        self._news.on_pins = self._tell_soon
        self._changed: set[PoolName] = set()
        self._ill: dict[PoolName, frozenset[Address]] = {}  # of whom that was told last
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, service: LiveService) -> None:
        """Have the control side know of this one."""
        service.on_pin = self._news.note_pin
        service.on_change = self._note_change

    def forget(self, name: PoolName) -> None:
        """A Service port is steered no longer."""
        self._ill.pop(name, None)
        self._changed.discard(name)

    def learn(self, order: messages.LearnPins | messages.LearnJudgements) -> None:
        """Take over what another process has known."""
        service = self._services.get(order.pool)
        if service is None:
            return
        if isinstance(order, messages.LearnJudgements):
            judgements.learn(service, order.backends, self._clock())
        elif service.pool.affinity is not None:
            service.affinity.learn(order.pins, self._clock())

    def tell_all(self, serial: int) -> None:
        """All that is known."""
        now = self._clock()
        for name, service in self._services.items():
            self._tell_pins(messages.Pins(serial=serial, pool=name, pins=tuple(service.affinity.all(now))))
        self._judge(self._services, serial)

    def tell_last(self, serial: int) -> None:
        """What has yet to be told."""
        for part in self._news.fresh_pins():
            self._tell_pins(messages.Pins(serial=serial, pool=part.pool, pins=part.pins))
        self._judge(self._services, serial)

    def close(self) -> None:
        """Tell nothing more by itself."""
        if self._timer is not None:
            self._timer.cancel()

    def _note_change(self, service: LiveService) -> None:
        self._changed.add(service.pool.name)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_NEWS_SECONDS, self._tell_news)

    def _tell_news(self) -> None:
        self._timer = None
        for part in self._news.fresh_pins():
            self._tell_pins(part)
        changed, self._changed = self._changed, set()
        self._judge([name for name in changed if name in self._services], 0)

    def _tell_pins(self, part: messages.Pins) -> None:
        for start in range(0, len(part.pins), IN_ONE_MESSAGE):
            some = part.pins[start : start + IN_ONE_MESSAGE]
            self._say(messages.Pins(serial=part.serial, pool=part.pool, pins=some))

    def _judge(self, names: Iterable[PoolName], serial: int) -> None:
        """Tell of those of whom there is something to say, and of those of whom there was."""
        now = self._clock()
        for name in names:
            found = judgements.judgements(self._services[name], now)
            ill = frozenset(each.backend for each in found)
            found += map(Judgement, self._ill.get(name, frozenset()) - ill)
            self._ill[name] = ill
            if not ill:
                del self._ill[name]
            for start in range(0, len(found), IN_ONE_MESSAGE):
                some = tuple(found[start : start + IN_ONE_MESSAGE])
                self._say(messages.Judgements(serial=serial, pool=name, backends=some))
