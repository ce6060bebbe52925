"""One connection as a pure state machine: events in, commands out, no sockets.

A client has been accepted; a backend is dialled, and another one if that fails; both are relayed until each
side has finished sending (RFC 9293, section 3.6: a connection may be closed in one direction only), or until
one of them resets. Where the Service has no endpoints, and wants its clients held, the client waits for one
first. `relay` applies the commands and reports the events.

`TRANSITIONS` is the whole behaviour, one row for each thing that can happen in each state. What is not in a
row cannot matter there any more (a timer that fires late, a second end of the same side) and is ignored.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from userproxy.model.endings import Reason


class State(enum.StrEnum):
    """Where a connection is in its life. The values are what `userproxy connections` prints."""

    CONNECTING = "connecting"
    GREETING = "greeting"
    """The balancer in front has yet to say who the client is (the PROXY protocol)."""
    WAITING = "waiting"
    """The Service has no endpoints, and holds its clients until it has some."""
    ESTABLISHED = "established"
    CLIENT_FINISHED = "client-finished"
    """The client has shut its sending side; the backend's reply is still on its way."""
    BACKEND_FINISHED = "backend-finished"
    CLOSED = "closed"


class Event(enum.StrEnum):
    """What can happen to a connection."""

    CONNECTED = "connected"
    DIAL_FAILED = "dial-failed"
    """One backend refused, was unreachable or did not answer in time, and there is time for another one."""
    BACKENDS_EXHAUSTED = "backends-exhausted"
    """Some were tried, and no distinct one is left, or the time for dialling is spent."""
    NO_BACKEND = "no-backend"
    """There is none to try."""
    GREETING_DUE = "greeting-due"
    """It comes from a balancer that has to say first who the client is."""
    GREETED = "greeted"
    """It has said so."""
    NOT_GREETED = "not-greeted"
    """What it said is no header of the PROXY protocol, or it took too long, or went away."""
    TOO_MANY = "too-many"
    """The client that it named has as many connections as it may have."""
    NO_ENDPOINTS = "no-endpoints"
    """The Service has none at all, and holds its clients."""
    ENDPOINTS_CAME = "endpoints-came"
    HOLD_FULL = "hold-full"
    """As many clients wait for the Service as may."""
    HOLD_EXPIRED = "hold-expired"
    """The client has waited for as long as the Service holds clients."""
    CLIENT_FIN = "client-fin"
    """The client finished sending, and all its bytes have been handed to the backend's socket. Or, while it
    waits: it finished sending, as everybody does who gives up."""
    BACKEND_FIN = "backend-fin"
    CLIENT_RESET = "client-reset"
    BACKEND_RESET = "backend-reset"
    CLIENT_LOST = "client-lost"
    """The client's socket failed otherwise: nobody answers there any more."""
    BACKEND_LOST = "backend-lost"
    LINGER_EXPIRED = "linger-expired"
    """A half-closed connection carried no byte for the linger time."""
    AGED = "aged"
    """It has reached the age that its Service allows."""
    BACKEND_REMOVED = "backend-removed"
    """Its pod is gone, and so is the time that its Service gives connections then."""
    KILLED = "killed"
    FAILED = "failed"
    """Something of ours failed that never should."""
    SHUTDOWN = "shutdown"
    """The daemon stops, and the time for draining is over."""


class Command(enum.StrEnum):
    """What the relay must do, in the order given."""

    DIAL = "dial"
    """Dial the next distinct backend; report what comes of it."""
    GREET = "greet"
    """Read who the client is."""
    WAIT = "wait"
    """Watch for the end of the wait, and of the client, if there is a place for it."""
    DIAL_ANEW = "dial-anew"
    """Wait no longer, and dial as for a client that comes now."""
    RELAY = "relay"
    """Start moving bytes both ways."""
    FIN_TO_BACKEND = "fin-to-backend"
    """Shut the sending side of the backend's leg."""
    FIN_TO_CLIENT = "fin-to-client"
    LINGER = "linger"
    """Watch the direction that is still open: report when it carries nothing for the linger time."""
    CLOSE = "close"
    """Close both legs in order: everything has been delivered."""
    RESET = "reset"
    """Reset both legs: neither peer may take what it has for the whole."""


class Transition(NamedTuple):
    """The answer to one event."""

    state: State
    commands: tuple[Command, ...]
    reason: Reason | None = None


def _ends(reason: Reason, command: Command = Command.RESET) -> Transition:
    return Transition(State.CLOSED, (command,), reason)


_CUT_SHORT = {
    Event.CLIENT_RESET: _ends(Reason.CLIENT_RESET),
    Event.BACKEND_RESET: _ends(Reason.BACKEND_RESET),
    Event.CLIENT_LOST: _ends(Reason.CLIENT_LOST),
    Event.BACKEND_LOST: _ends(Reason.BACKEND_LOST),
    Event.AGED: _ends(Reason.AGED),
    Event.BACKEND_REMOVED: _ends(Reason.BACKEND_REMOVED),
    Event.KILLED: _ends(Reason.KILLED),
    Event.FAILED: _ends(Reason.FAILED),
    Event.SHUTDOWN: _ends(Reason.SHUTDOWN),
}

TRANSITIONS: dict[State, dict[Event, Transition]] = {
    State.CONNECTING: {
        **_CUT_SHORT,
        Event.CONNECTED: Transition(State.ESTABLISHED, (Command.RELAY,)),
        Event.DIAL_FAILED: Transition(State.CONNECTING, (Command.DIAL,)),
        Event.BACKENDS_EXHAUSTED: _ends(Reason.DIAL_FAILED),
        Event.NO_BACKEND: _ends(Reason.NO_BACKEND),
        Event.NO_ENDPOINTS: Transition(State.WAITING, (Command.WAIT,)),
        Event.GREETING_DUE: Transition(State.GREETING, (Command.GREET,)),
    },
    State.GREETING: {
        **_CUT_SHORT,
        Event.GREETED: Transition(State.CONNECTING, (Command.DIAL_ANEW,)),
        Event.NOT_GREETED: _ends(Reason.NOT_GREETED),
        Event.TOO_MANY: _ends(Reason.TOO_MANY),
    },
    State.WAITING: {
        **_CUT_SHORT,
        Event.ENDPOINTS_CAME: Transition(State.CONNECTING, (Command.DIAL_ANEW,)),
        Event.NO_BACKEND: _ends(Reason.NO_BACKEND),
        Event.HOLD_FULL: _ends(Reason.HOLD_FULL),
        Event.HOLD_EXPIRED: _ends(Reason.HOLD_EXPIRED),
        Event.CLIENT_FIN: _ends(Reason.CLIENT_GONE),
    },
    State.ESTABLISHED: {
        **_CUT_SHORT,
        Event.CLIENT_FIN: Transition(State.CLIENT_FINISHED, (Command.FIN_TO_BACKEND, Command.LINGER)),
        Event.BACKEND_FIN: Transition(State.BACKEND_FINISHED, (Command.FIN_TO_CLIENT, Command.LINGER)),
    },
    State.CLIENT_FINISHED: {
        **_CUT_SHORT,
        Event.BACKEND_FIN: _ends(Reason.CLIENT_FIN, Command.CLOSE),
        Event.LINGER_EXPIRED: _ends(Reason.LINGER),
    },
    State.BACKEND_FINISHED: {
        **_CUT_SHORT,
        Event.CLIENT_FIN: _ends(Reason.BACKEND_FIN, Command.CLOSE),
        Event.LINGER_EXPIRED: _ends(Reason.LINGER),
    },
    State.CLOSED: {},
}


class Flow:
    """The state of one connection, from accepted to closed.

    Attributes:
        state: where it is.
        reason: why it ended; None while it lives.
    """

    __slots__ = ("reason", "state")

    def __init__(self) -> None:
        self.state = State.CONNECTING
        self.reason: Reason | None = None

    def handle(self, event: Event) -> tuple[Command, ...]:
        """Take in what happened; the commands say what to do about it, often nothing."""
        transition = TRANSITIONS[self.state].get(event)
        if transition is None:
            return ()
        self.state = transition.state
        self.reason = transition.reason
        return transition.commands


class DialBudget(NamedTuple):
    """How long reaching a backend may take.

    An attempt gets one second: less is below the first retransmission of a lost SYN (RFC 6298), and would
    give up on a pod that is merely far away.

    Attributes:
        attempt: seconds for one backend.
        total: seconds from accepting the client to giving up.
    """

    attempt: float = 1.0
    total: float = 5.0

    def next_attempt(self, elapsed: float) -> float:
        """Seconds that an attempt beginning now may take; zero when the time for dialling is spent.

        Args:
            elapsed: seconds since the client was accepted.
        """
        return max(0.0, min(self.attempt, self.total - elapsed))
