"""How often a server is asked that fails in one way for ever: requests of one reflector a minute."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from userproxy.sources.kubernetes.backoff import Backoff
from userproxy.sources.kubernetes.failures import AccessError, GoneError
from userproxy.sources.kubernetes.reflector import Reflector, Resource
from userproxy.tests.sources.kubernetes.scripted import (
    Answer,
    OverError,
    RecordingStore,
    ScriptedServer,
    VirtualTime,
    bookmark,
    event,
    item,
    page,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

GADGETS = Resource("gadgets", "/api/gadgets", "GadgetList", {})
MINUTES = 10


class Server(ScriptedServer):
    """Answers lists with what is there, and watches in one way.

    Attributes:
        minutes: when it was asked, since the beginning.
    """

    def __init__(self, time: VirtualTime, watch: Callable[[int], Answer]) -> None:
        super().__init__(time=time)
        self.minutes: list[int] = []
        self._began = time.now
        self._watch = watch
        self._versions: Iterator[int] = itertools.count(1)

    def _next(self, _path: str, query: Mapping[str, str]) -> Answer:
        minute = int((self._time.now - self._began) / 60)
        if minute >= MINUTES or len(self.minutes) > 10_000:
            raise OverError
        self.minutes.append(minute)
        if "watch" not in query:
            return page(next(self._versions), item("a", next(self._versions)))
        answer = self._watch(next(self._versions))
        if isinstance(answer, Exception):
            raise answer
        return answer


async def rates(watch: Callable[[int], Answer]) -> list[int]:
    """Requests in each minute."""
    time = VirtualTime()
    server = Server(time, watch)
    reflector = Reflector(GADGETS, server, RecordingStore(), Backoff(lambda: 1.0), lambda _: None, time.times)
    with pytest.raises(OverError):
        await reflector.run()
    return [server.minutes.count(minute) for minute in range(MINUTES)]


HUNG_UP = AccessError("has hung up", unreachable=True)

SHORT: dict[str, Callable[[int], Answer]] = {
    "ends at once": lambda _: [],
    "ends after a bookmark": lambda version: [bookmark(version)],
    "ends after an event": lambda version: [event("MODIFIED", item("a", version))],
    "ends after a second of events": lambda version: [
        event("MODIFIED", item("a", version)),
        1.0,
        bookmark(version + 1),
    ],
    "hangs up after an event": lambda version: [event("MODIFIED", item("a", version)), HUNG_UP],
    "is gone, as an event": lambda _: [status(410, "too old")],
    "is gone, after an event": lambda version: [event("ADDED", item("b", version)), status(410, "too old")],
    "is gone, as an answer": lambda _: GoneError("too old"),
    "fails": lambda _: AccessError("answered 500"),
    "is garbage": lambda _: [b"<html>\n"],
    "is now this, now that": lambda version: HUNG_UP if version % 2 else [],
}


@pytest.mark.parametrize("way", SHORT)
async def test_a_watch_that_is_short_each_time_is_asked_for_less_and_less_often(way: str) -> None:
    first, *later = await rates(SHORT[way])
    assert first <= 26
    assert max(later) <= 8, "a list and a watch each quarter of a minute"
    assert min(later) >= 2, "it is not given up"


async def test_a_server_that_is_not_there_is_asked_every_two_seconds() -> None:
    first, *later = await rates(lambda _: AccessError("cannot be reached", unreachable=True))
    assert first <= 36
    assert set(later) == {30}


async def test_watches_that_last_follow_each_other_without_a_pause() -> None:
    assert await rates(lambda version: [30.0, bookmark(version), 30.0]) == [2] + [1] * (MINUTES - 1)


async def test_a_steady_watch_makes_up_for_what_was_before() -> None:
    time = VirtualTime()
    script: list[Answer] = [*([],) * 12, [10.0], *([],) * 3]
    ways = iter(script)
    reflector = Reflector(
        GADGETS,
        Server(time, lambda _: next(ways, OverError())),
        RecordingStore(),
        Backoff(lambda: 1.0),
        lambda _: None,
        time.times,
    )
    with pytest.raises(OverError):
        await reflector.run()
    assert [round(pause, 2) for pause in time.pauses[-3:]] == [0.2, 0.3, 0.45]
