"""What steering processes have told of clients' pins and of pods, kept for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.backends.judgements import is_well, later
from userproxy.model import messages
from userproxy.worker.pins import SharedPins
from userproxy.worker.steering.memory import IN_ONE_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from userproxy.model.address import Address
    from userproxy.model.heritage import Judgement
    from userproxy.model.service import PoolName


class Legacy:
    """Lives as long as the control process, and so through the end of any steering process.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pins = SharedPins(clock)
        self._judgements: dict[PoolName, dict[Address, tuple[float, Judgement]]] = {}

    def take(self, parts: Iterable[messages.Parts]) -> None:
        """Take in what a process tells."""
        now = self._clock()
        for part in parts:
            if isinstance(part, messages.Pins):
                self._pins.take([part])
            elif isinstance(part, messages.Judgements):
                known = self._judgements.setdefault(part.pool, {})
                for each in part.backends:
                    if is_well(each):
                        known.pop(each.backend, None)
                    else:
                        known[each.backend] = (now, each)

    def forget(self, names: Iterable[PoolName]) -> None:
        """These are steered no longer."""
        for name in names:
            self._pins.forget([name])
            self._judgements.pop(name, None)

    def orders(self) -> Iterator[messages.LearnPins | messages.LearnJudgements]:
        """What to tell a process that knows nothing yet."""
        yield from self._pins.all()
        now = self._clock()
        for name, known in self._judgements.items():
            found = [later(each, now - told) for told, each in known.values()]
            for start in range(0, len(found), IN_ONE_MESSAGE):
                some = tuple(found[start : start + IN_ONE_MESSAGE])
                yield messages.LearnJudgements(pool=name, backends=some)


def as_orders(parts: Iterable[messages.Parts]) -> Iterator[messages.LearnPins | messages.LearnJudgements]:
    """What a process tells, as another one is told."""
    for part in parts:
        if isinstance(part, messages.Pins):
            yield messages.LearnPins(pool=part.pool, pins=part.pins)
        elif isinstance(part, messages.Judgements):
            yield messages.LearnJudgements(pool=part.pool, backends=part.backends)
