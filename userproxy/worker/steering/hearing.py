"""What becomes of connections that were chosen for, as conntrack tells it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.conntrack.events import MOST_AT_ONCE, Batch, EventSocket, listed
from userproxy.netfilter.conntrack.heard import Told
from userproxy.netfilter.conntrack.single import counting

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from userproxy.dataplane.steered.decision import Decision
    from userproxy.netfilter.conntrack.heard import Heard
    from userproxy.netfilter.conntrack.single import Conntrack

AGAIN_SECONDS = 30.0

MOST_COUNTED = 64
"""So many events at once where the kernel is asked what connections have carried, which takes 25 us each."""

_LOOK_SECONDS = 0.1

_SETTLED_SECONDS = 0.3
"""After which conntrack has, or will never have, a connection whose first packet went on."""

AT_ONCE = 500
"""So many connections of a list are told before whoever waits in the queue has a turn."""

log = structlog.get_logger("userproxy.steering")


class Hearing:
    """Tells the decision what conntrack tells. Lives as long as its process.

    Connections that began before are listed at the start, and all are whenever the kernel could not keep up
    telling. Of those that began while nobody listened it may never tell the end, so as long as there are
    connections that were found in a list, another one is made now and then. In a namespace where nothing
    can be heard, connections are forgotten after some time, and who has most of them is not known.

    Args:
        loop: that drives it.
        decision: who is told.
        changed: called after that.
        again: seconds between two lists.
        conntrack: is asked what connections have carried; None: nobody is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        decision: Decision,
        changed: Callable[[], object],
        again: float = AGAIN_SECONDS,
        conntrack: Conntrack | None = None,
    ) -> None:
        self._loop = loop
        self._decision = decision
        self._changed = changed
        self._conntrack = conntrack
        self._counting, self._looked = False, -_LOOK_SECONDS
        self._socket: EventSocket | None = None
        self._reader = ThreadPoolExecutor(1, "conntrack")
        self._listing: asyncio.Future[list[Heard]] | None = None
        self._again = False
        self._before: dict[bytes, float | None] = {}
        self._over_meanwhile: set[bytes] = set()
        self._unheard: set[bytes] = set()  # found in a list, and perhaps their end is not told
        self._again_seconds = again
        self._lost = False  # of some that are not known to live, the beginning and the end
        self._timer: asyncio.TimerHandle | None = None
        self._last_look: asyncio.TimerHandle | None = None
        try:
            self._socket = EventSocket()
        except NetfilterError as error:
            log.warning("connections are not counted as they end", error=str(error))
            return
        loop.add_reader(self._socket.fileno(), self._on_events)

    def begin(self) -> None:
        """Learn of the connections that there are."""
        if self._socket is None:
            self._decision.listed()  # as far as they ever will be
            return
        self._again = True
        if self._listing is None:
            self._again = False
            self._before = dict.fromkeys(self._decision.confirmed())
            if self._lost:
                self._before |= self._decision.unheard()
            self._over_meanwhile.clear()
            self._listing = self._loop.run_in_executor(self._reader, listed)
            self._listing.add_done_callback(self._on_list)

    def close(self) -> None:
        """Hear no more."""
        for timer in (self._timer, self._last_look):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._reader.shutdown(wait=False)

    def _on_events(self) -> None:
        if self._socket is None:
            return
        most = MOST_COUNTED if self._counting else MOST_AT_ONCE
        events, lost = self._counted(self._socket.read(most))
        self._tell(events)
        if lost:
            log.warning("conntrack told more than could be read: connections are listed anew")
            self._lost = True
            self.begin()
            if self._last_look is None:  # for those that have just gone on
                self._last_look = self._loop.call_later(_SETTLED_SECONDS, self._look_once_more)
        self._changed()

    def _look_once_more(self) -> None:
        self._last_look = None
        self.begin()

    def _tell(self, events: Iterable[Heard]) -> None:
        decision = self._decision
        for told, flow, backend, end in events:
            if told is Told.NEW or told is Told.ANSWERED:
                decision.carried(flow, backend, answered=told is Told.ANSWERED)
                continue
            self._unheard.discard(flow)
            if self._listing is not None:
                self._over_meanwhile.add(flow)
            if told is Told.OVER:
                decision.ended(flow, backend, end)
            else:
                decision.refused(flow, backend, end)

    def _counted(self, batch: Batch) -> Batch:
        """The same, with what those have carried that are over, if the kernel counts.

        It tells that of its own accord only when it forgets an entry, minutes later.
        """
        events = batch.events
        now = self._loop.time()
        if now - self._looked >= _LOOK_SECONDS:
            self._counting, self._looked = counting(), now
        if not self._counting or self._conntrack is None:
            return batch
        get = self._decision.get
        asked = [at for at, one in enumerate(events) if _is_uncounted(one) and get(one.flow) is not None]
        try:
            found = self._conntrack.counts([events[at].flow for at in asked])
        except OSError as error:
            log.warning("what connections have carried is not known", error=str(error))
            return batch
        # What was reset it may forget as soon as it is asked, and tells what that has carried.
        more = self._socket.read() if None in found and self._socket is not None else Batch([], lost=False)
        told = {
            (one.flow, one.end.number): one.end.counts
            for one in (*events, *more.events)
            if one.end is not None and one.end.counts is not None
        }
        for at, known in zip(asked, found, strict=True):
            flow, end = events[at].flow, events[at].end
            if end is not None:
                is_it = known is not None and known[0] == end.number
                counts = known[1] if known is not None and is_it else told.get((flow, end.number))
                events[at] = events[at]._replace(end=end._replace(counts=counts))
        return Batch(events + more.events, batch.lost or more.lost)

    def _take_in(self, found: list[Heard], begin: int, heard: set[bytes]) -> None:
        """A list takes a while to be read: what began or ended meanwhile is known better by the events.

        Args:
            found: the list.
            begin: what of it has been told already.
            heard: connections that were known before.
        """
        if self._socket is None:
            return
        part = found[begin : begin + AT_ONCE]
        self._tell(one for one in part if one.flow not in self._over_meanwhile)
        if part:
            self._loop.call_soon(self._take_in, found, begin + AT_ONCE, heard)
        else:
            self._compare({one.flow for one in found}, heard)
            self._listed()
        self._changed()

    def _compare(self, flows: set[bytes], heard: set[bytes]) -> None:
        """What was known and is no longer listed is over; of what was not, perhaps nobody tells the end."""
        for flow, sent in self._before.items():
            if flow not in flows:
                self._decision.missing(flow, sent)
        carried = self._decision.confirmed()
        self._unheard = (self._unheard | (carried - heard)) & flows & carried
        if self._unheard:
            self._plan()

    def _listed(self) -> None:
        self._listing = None
        if self._again:
            self.begin()
        else:
            self._lost = self._last_look is not None
            self._decision.listed()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._again_seconds, self.begin)

    def _on_list(self, listing: asyncio.Future[list[Heard]]) -> None:
        if listing.cancelled() or self._socket is None:
            return
        error = listing.exception()
        if error is not None:
            log.warning("connections cannot be listed", error=str(error))
            self._listed()
        else:
            self._on_events()
            self._take_in(listing.result(), 0, self._decision.confirmed())


def _is_uncounted(one: Heard) -> bool:
    return one.told is Told.OVER and one.end is not None and one.end.counts is None
