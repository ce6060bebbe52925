"""What is said to the kernel about each connection's first packet."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from userproxy.dataplane.steered.bounds import HELD_SECONDS, MEMORY_SECONDS, MOST_HELD, MOST_UNCONFIRMED
from userproxy.dataplane.steered.ledger import Ledger, reason_of
from userproxy.dataplane.steered.port import Carried, Port, Token
from userproxy.dataplane.steered.words import Known, Say
from userproxy.model.endings import Reason
from userproxy.model.flow_key import UDP, client_of, frontend_of
from userproxy.model.steering import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from userproxy.backends.backend import LiveBackend
    from userproxy.model.address import Address
    from userproxy.model.carried import End
    from userproxy.model.counters import Counters

_SOON = 0.2  # No client sends again so soon: a packet that was doubled, or more datagrams of a new flow.
_AGAIN_SECONDS = 15.0  # between two times that it is said that clients wait
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Decision:
    """Chooses, and keeps account. Lives as long as the steering process.

    Args:
        counters: of this process.
        clock: monotonic seconds.

    Attributes:
        frontends: by their key, whose they are.
        outside: likewise, for packets that come from outside, where that makes a difference.
        settled: what is said of packets that were held: for the caller to take, and to clear.
        to_dial: backends to be dialled at once, to see how they are, with their Service ports; likewise. The
            outcome goes to `dialled`, within `HELD_SECONDS`.
        to_tell: Service ports whose clients wait for endpoints; likewise.
        ledger: where connections are counted, and written down that are over.
        get: by its key, what is known of a connection; None: nothing.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self.frontends: dict[bytes, Port] = {}
        self.outside: dict[bytes, Port] = {}
        self.settled: list[tuple[Token, int]] = []
        self.to_dial: list[tuple[Port, LiveBackend]] = []
        self.to_tell: list[Port] = []
        self.ledger = Ledger(counters, clock)
        self._counters = counters
        self._clock = clock
        self._known: dict[bytes, Carried] = {}
        self.get = self._known.get
        self._unconfirmed: dict[bytes, Carried] = {}  # the oldest first
        self._dialled: dict[LiveBackend, list[Carried]] = {}
        self._waiting: set[Port] = set()  # that have packets which wait for endpoints
        self._held = 0

    def __len__(self) -> int:
        """How many connections are known, those that wait included."""
        return len(self._known)

    @property
    def held(self) -> int:
        """How many packets are held."""
        return self._held

    def first(self, flow: bytes, sequence: int, token: Token) -> int:
        """A first packet: the index of its backend, or something of `Say`.

        Args:
            flow: the key of its connection.
            sequence: its sequence number; 0 of UDP.
            token: by which it is answered.
        """
        known = self._known.get(flow)
        if known is not None:
            return self._first_again(known, sequence, token)
        frontends = self.outside if token[1] & OUTSIDE else self.frontends
        port = frontends.get(frontend_of(flow))
        if port is None or not port.can_count:
            return Say.UNSTEERED
        self.ledger.began(port)
        return self._choose(Carried(flow, port, client_of(flow), sequence, self._clock()), token)

    def again(self, flow: bytes, sequence: int, token: Token, known: Known) -> int:
        """Likewise, after a look at conntrack: whose entry, if it had no answer, is no longer there."""
        carried = self._known.get(flow)
        if carried is None:
            return self.first(flow, sequence, token)
        same = carried.sequence == sequence
        if known is Known.LIVE or (known is Known.OVER and same):
            return Say.UNSTEERED  # where it goes has been settled
        if not same or flow[0] == UDP:
            self._forget(carried, reason_of(carried))
            return self.first(flow, sequence, token)
        # What conntrack has never told of was lost before it left.
        refused = known is Known.NOTHING and flow not in self._unconfirmed
        self._failed(carried, errno.ECONNREFUSED if refused else errno.ETIMEDOUT)
        return self._choose(carried, token)

    def dialled(self, port: Port, live: LiveBackend, error: int, seconds: float) -> None:
        """What came of a dial that was asked for.

        Args:
            port: whose backend it is.
            live: the backend.
            error: the errno, `ETIMEDOUT` if it was not answered in time; 0 if it was.
            seconds: that it took.
        """
        if error:
            port.service.dial_failed(live, error)
        else:
            port.service.dial_answered(live, seconds)
        for carried in self._dialled.pop(live, ()):
            token = self._release(carried)
            if token is None or carried.live is not live:
                continue
            if error and error not in _OUR_OWN:
                port.service.retry(live)
                carried.fail(error, self._clock())
            elif live in port.places:
                self._settle(token, self._go(carried))
                continue
            carried.leave()
            self._settle(token, self._choose(carried, token))

    def carried(self, flow: bytes, backend: Address, *, answered: bool) -> None:
        """Conntrack knows of a connection: where it leads, and whether it has been answered.

        Also for those that were not chosen for here: the rules did while nobody answered the queue.
        """
        known = self._known.get(flow)
        if known is None:
            frontend = frontend_of(flow)
            port = self.frontends.get(frontend) or self.outside.get(frontend)
            if port is None:
                return
            known = self._known[flow] = Carried(flow, port, client_of(flow), None, self._clock())
        if known.token is not None:
            return  # that is the one before
        if known.live is None or known.live.address != backend:
            known.leave()
            known.enter(known.port.service.known(backend))
            if not answered:  # it has just begun: of older ones, pins have been handed on
                known.port.follow(known.client, backend, self._clock())
        self._unconfirmed.pop(flow, None)
        if answered and not known.answered and known.live is not None:
            known.answered = True
            if known.sequence is not None and flow[0] != UDP:
                known.took = self._clock() - known.sent
                known.port.service.dial_answered(known.live, known.took)

    def ended(self, flow: bytes, backend: Address, end: End | None = None) -> None:
        """A connection to this backend is over, or its entry has been deleted."""
        known = self._told_of(flow, backend)
        if known is not None:
            self._forget(known, reason_of(known, end), end)

    def refused(self, flow: bytes, backend: Address, end: End | None = None) -> None:
        """Conntrack has forgotten a connection to this backend that was never answered.

        The client does not know it: its next packet goes elsewhere. Unless it was answered after all, and is
        merely over: as where a client resets it in the midst of the handshake.
        """
        known = self._told_of(flow, backend)
        if known is None:
            return
        if known.answered or flow[0] == UDP or self._clock() - known.sent >= MEMORY_SECONDS:
            self._forget(known, reason_of(known, end), end)
        else:
            live = known.live
            self._left(known, errno.ECONNREFUSED)
            self._remember(known)
            if live is not None:  # a client's own reset looks the same
                self._see(known.port, live)

    def confirmed(self) -> set[bytes]:
        """The keys of connections that conntrack has told of, and not of their end."""
        return {
            flow
            for flow, known in self._known.items()
            if known.live is not None and known.token is None and flow not in self._unconfirmed
        }

    def listed(self) -> None:
        """All connections are known that the Service ports have."""
        for port in (*self.frontends.values(), *self.outside.values()):
            port.listed = True

    def unheard(self) -> dict[bytes, float]:
        """The keys of connections of which conntrack should have told, and when their packet went on."""
        latest = self._clock() - _SOON
        return {flow: known.sent for flow, known in self._unconfirmed.items() if known.sent <= latest}

    def missing(self, flow: bytes, sent: float | None = None) -> None:
        """Conntrack does not list a connection of which it had told, or should have if it went on then."""
        known = self._known.get(flow)
        if known is None or known.token is not None:
            return
        if flow not in self._unconfirmed or known.sent == sent:
            self._forget(known, reason_of(known))

    def settle(self, port: Port) -> None:
        """A Service port has changed: let those go on that wait for endpoints, if they need not any more."""
        if not port.service.holds and (port.places or not port.steer.moving):
            for carried in list(port.waiting.values()):
                self._settle_waiting(carried)

    def expire(self) -> None:
        """Forget what was to be known for a while; to be called from time to time, several times a second."""
        now = self._clock()
        while self._unconfirmed:
            carried = next(iter(self._unconfirmed.values()))
            if now - carried.sent < MEMORY_SECONDS:
                break
            self._forget(carried, reason_of(carried))
        for port in [*self._waiting]:
            self._look_at_waiting(port, now)
            if not port.waiting:
                self._waiting.discard(port)

    def stop(self, port: Port) -> None:
        """A Service port is steered no longer: nobody waits for it any more. Its connections live on."""
        port.places = {}
        for carried in list(port.waiting.values()):
            self._settle_waiting(carried)

    def let_go(self) -> None:
        """Nobody chooses here any more: packets that are held go on as they came."""
        for carried in list(self._known.values()):
            token = self._release(carried)
            if token is not None:
                self._forget(carried)
                self.settled.append((token, Say.UNSTEERED))

    def _told_of(self, flow: bytes, backend: Address) -> Carried | None:
        """The connection whose end is told, unless that is the end of one before it."""
        known = self._known.get(flow)
        if known is None or known.live is None or known.live.address != backend:
            return None
        # Of each that the kernel carries, it has told the beginning before.
        return None if known.token is not None or flow in self._unconfirmed else known

    def _first_again(self, known: Carried, sequence: int, token: Token) -> int:
        """Another first packet of a connection that is known."""
        if known.token is not None:
            return Say.DROP
        if known.live is None:  # it was refused
            known.since = self._clock()
            if known.sequence != sequence:
                known.try_all(sequence)
            return self._choose(known, token)
        recent = self._clock() - known.sent < _SOON
        if known.flow[0] == UDP and not recent:
            self._forget(known, reason_of(known))
            return self.first(known.flow, sequence, token)
        if known.sequence == sequence and recent:
            return known.port.places.get(known.live, Say.LOOK)
        return Say.LOOK

    def _choose(self, carried: Carried, token: Token) -> int:
        """Pick a backend for a connection that has none, or hold or refuse it."""
        port, client = carried.port, carried.client
        service = port.service
        if service.is_full or service.is_full_for(client):
            self._counters.clients_turned_away += 1
            self._forget(carried, Reason.TOO_MANY)
            return Say.REFUSE
        live = port.pick(client, carried.tried, self._clock())
        if live is None and carried.tried:  # all have failed it
            if port.places and not carried.silent:
                self._forget(carried, Reason.DIAL_FAILED)
                return Say.REFUSE
            carried.try_all(carried.sequence)  # a packet to one that was silent may have been lost
            live = port.pick(client, (), self._clock())
        if live is None:
            return self._wait(carried, token)
        if self._is_in_doubt(live) and carried.flow[0] != UDP:
            *passed_over, live = port.instead_of(live, carried, self._is_in_doubt, self._clock())
            for each in passed_over:
                self._see(port, each)
        if live not in port.places:  # it is steered no longer, or the kernel is being told of it
            self._forget(carried)
            return Say.UNSTEERED
        carried.enter(live)
        if (carried.tried or self._is_in_doubt(live)) and self._may_hold(carried):
            return self._hold(carried, token, live)
        return self._go(carried)

    def _is_in_doubt(self, live: LiveBackend) -> bool:
        return bool(live.outlier.failures) or live.ejected or live in self._dialled

    def _go(self, carried: Carried) -> int:
        """The index of a connection's backend, which goes on with that."""
        place = None if carried.live is None else carried.port.places.get(carried.live)
        if place is None:
            self._forget(carried)
            return Say.UNSTEERED
        carried.sent = self._clock()
        self._remember(carried)
        return place

    def _may_hold(self, carried: Carried) -> bool:
        return (
            carried.flow[0] != UDP and self._held < MOST_HELD and self._clock() - carried.since < HELD_SECONDS
        )

    def _hold(self, carried: Carried, token: Token, live: LiveBackend) -> int:
        self._keep(carried, token)
        self._see(carried.port, live)
        self._dialled[live].append(carried)
        return Say.HELD

    def _wait(self, carried: Carried, token: Token) -> int:
        """Hold a packet until there are endpoints, if the author wants it and there is a place."""
        port = carried.port
        full = len(port.waiting) >= port.service.places or self._held >= MOST_HELD
        if not port.service.holds or full:
            self._forget(carried, Reason.HOLD_FULL if port.service.holds else Reason.NO_BACKEND)
            return Say.REFUSE
        self._counters.clients_held += 1
        carried.since = self._clock()
        if not port.waiting:
            self._waiting.add(port)
            self._tell(port, carried.since)
        self._keep(carried, token)
        port.waiting[carried.flow] = carried
        return Say.HELD

    def _tell(self, port: Port, now: float) -> None:
        port.told = now
        self.to_tell.append(port)

    def _keep(self, carried: Carried, token: Token) -> None:
        carried.token = token
        self._held += 1
        self._known[carried.flow] = carried
        self._unconfirmed.pop(carried.flow, None)

    def _release(self, carried: Carried) -> Token | None:
        token, carried.token = carried.token, None
        if token is not None:
            self._held -= 1
            carried.port.waiting.pop(carried.flow, None)
        return token

    def _settle(self, token: Token, answer: int) -> None:
        if answer != Say.HELD:
            self.settled.append((token, answer))

    def _settle_waiting(self, carried: Carried, *, over: bool = False) -> None:
        token = self._release(carried)
        if token is None:
            return
        if over or not carried.port.places:
            self._forget(carried, Reason.HOLD_EXPIRED if over else Reason.NO_BACKEND)
            self.settled.append((token, Say.REFUSE))
            return
        carried.since = self._clock()
        self._settle(token, self._choose(carried, token))

    def _look_at_waiting(self, port: Port, now: float) -> None:
        longest = port.service.pool.settings.hold_timeout
        for carried in list(port.waiting.values()):
            if now - carried.since < longest:
                break
            self._settle_waiting(carried, over=True)
        if port.waiting and now - port.told >= _AGAIN_SECONDS:
            self._tell(port, now)

    def _failed(self, carried: Carried, error: int) -> None:
        """A connection's backend has failed it: perhaps it alone: a network policy is against it."""
        live = carried.live
        if live is not None:
            carried.port.service.dial_failed(live, error, judged=False)
            carried.port.service.retry(live)
            self._left(carried, error)
            self._see(carried.port, live)

    def _see(self, port: Port, live: LiveBackend) -> None:
        """Have a dial of ours see how a backend is: it is judged by that, and not by what a client says."""
        if live not in self._dialled:
            self._dialled[live] = []
            self.to_dial.append((port, live))

    def _left(self, carried: Carried, error: int) -> None:
        """A connection's backend is not to be its backend any more."""
        carried.fail(error, self._clock())
        self._unconfirmed.pop(carried.flow, None)
        carried.since = self._clock()

    def _remember(self, carried: Carried) -> None:
        self._known[carried.flow] = carried
        self._unconfirmed.pop(carried.flow, None)  # or it would keep its place among the oldest
        self._unconfirmed[carried.flow] = carried
        if len(self._unconfirmed) > MOST_UNCONFIRMED:
            self._forget(next(iter(self._unconfirmed.values())))

    def _forget(self, carried: Carried, reason: Reason | None = None, end: End | None = None) -> None:
        """It is over; for no reason: somebody else has it from now on."""
        if reason is not None:
            self.ledger.over(carried, reason, end)
        carried.leave()
        if self._known.get(carried.flow) is carried:
            del self._known[carried.flow]
        if self._unconfirmed.get(carried.flow) is carried:
            del self._unconfirmed[carried.flow]
