"""Conversations with the state machine of one connection: what happened, where it is now, what to do."""

from __future__ import annotations

import pytest

from userproxy.dataplane.tcp.lifecycle import (
    TRANSITIONS,
    Command,
    DialBudget,
    Event,
    Flow,
    State,
)
from userproxy.model.endings import Reason

Conversation = list[tuple[Event, State, tuple[Command, ...]]]

ESTABLISHED: Conversation = [(Event.CONNECTED, State.ESTABLISHED, (Command.RELAY,))]
CLIENT_FINISHED: Conversation = [
    *ESTABLISHED,
    (Event.CLIENT_FIN, State.CLIENT_FINISHED, (Command.FIN_TO_BACKEND, Command.LINGER)),
]
BACKEND_FINISHED: Conversation = [
    *ESTABLISHED,
    (Event.BACKEND_FIN, State.BACKEND_FINISHED, (Command.FIN_TO_CLIENT, Command.LINGER)),
]
WAITING: Conversation = [(Event.NO_ENDPOINTS, State.WAITING, (Command.WAIT,))]
GREETING: Conversation = [(Event.GREETING_DUE, State.GREETING, (Command.GREET,))]
LEADS_TO: dict[State, Conversation] = {
    State.CONNECTING: [],
    State.GREETING: GREETING,
    State.WAITING: WAITING,
    State.ESTABLISHED: ESTABLISHED,
    State.CLIENT_FINISHED: CLIENT_FINISHED,
    State.BACKEND_FINISHED: BACKEND_FINISHED,
}
CLOSE: tuple[Command, ...] = (Command.CLOSE,)
RESET: tuple[Command, ...] = (Command.RESET,)
CUT_SHORT = {
    Event.CLIENT_RESET: Reason.CLIENT_RESET,
    Event.BACKEND_RESET: Reason.BACKEND_RESET,
    Event.CLIENT_LOST: Reason.CLIENT_LOST,
    Event.BACKEND_LOST: Reason.BACKEND_LOST,
    Event.AGED: Reason.AGED,
    Event.BACKEND_REMOVED: Reason.BACKEND_REMOVED,
    Event.KILLED: Reason.KILLED,
    Event.FAILED: Reason.FAILED,
    Event.SHUTDOWN: Reason.SHUTDOWN,
}

OF_THE_KERNEL = {Reason.RESET, Reason.FORGOTTEN}

OF_SESSIONS = {
    Reason.IDLE,
    Reason.ANSWERED,
    Reason.EVICTED,
    Reason.LISTENER_CLOSED,
    Reason.HANDED_OVER,
}


def play(conversation: Conversation) -> Flow:
    """Hold a conversation with a new flow, and return it as it is afterwards."""
    flow = Flow()
    assert (flow.state, flow.reason) == (State.CONNECTING, None)
    for event, state, commands in conversation:
        assert flow.handle(event) == commands
        assert flow.state is state
    return flow


ENDINGS: dict[str, tuple[Conversation, Reason]] = {
    "request and reply, the client finishes first": (
        [*CLIENT_FINISHED, (Event.BACKEND_FIN, State.CLOSED, CLOSE)],
        Reason.CLIENT_FIN,
    ),
    "the backend finishes first": (
        [*BACKEND_FINISHED, (Event.CLIENT_FIN, State.CLOSED, CLOSE)],
        Reason.BACKEND_FIN,
    ),
    "two backends fail, the third answers, the client resets": (
        [
            (Event.DIAL_FAILED, State.CONNECTING, (Command.DIAL,)),
            (Event.DIAL_FAILED, State.CONNECTING, (Command.DIAL,)),
            *ESTABLISHED,
            (Event.CLIENT_RESET, State.CLOSED, RESET),
        ],
        Reason.CLIENT_RESET,
    ),
    "no backend is left": (
        [
            (Event.DIAL_FAILED, State.CONNECTING, (Command.DIAL,)),
            (Event.BACKENDS_EXHAUSTED, State.CLOSED, RESET),
        ],
        Reason.DIAL_FAILED,
    ),
    "the client waits for an endpoint, and is served": (
        [
            *WAITING,
            (Event.ENDPOINTS_CAME, State.CONNECTING, (Command.DIAL_ANEW,)),
            *CLIENT_FINISHED,
            (Event.BACKEND_FIN, State.CLOSED, CLOSE),
        ],
        Reason.CLIENT_FIN,
    ),
    "all endpoints go while one is dialled": (
        [
            (Event.DIAL_FAILED, State.CONNECTING, (Command.DIAL,)),
            *WAITING,
            (Event.HOLD_EXPIRED, State.CLOSED, RESET),
        ],
        Reason.HOLD_EXPIRED,
    ),
    "there is no place to wait": ([*WAITING, (Event.HOLD_FULL, State.CLOSED, RESET)], Reason.HOLD_FULL),
    "the client gives up while it waits": (
        [*WAITING, (Event.CLIENT_FIN, State.CLOSED, RESET)],
        Reason.CLIENT_GONE,
    ),
    "a balancer says who its client is": (
        [
            *GREETING,
            (Event.GREETED, State.CONNECTING, (Command.DIAL_ANEW,)),
            *CLIENT_FINISHED,
            (Event.BACKEND_FIN, State.CLOSED, CLOSE),
        ],
        Reason.CLIENT_FIN,
    ),
    "a balancer does not say who its client is": (
        [*GREETING, (Event.NOT_GREETED, State.CLOSED, RESET)],
        Reason.NOT_GREETED,
    ),
    "a balancer names a client that has too many": (
        [*GREETING, (Event.TOO_MANY, State.CLOSED, RESET)],
        Reason.TOO_MANY,
    ),
    "there is no backend to dial": ([(Event.NO_BACKEND, State.CLOSED, RESET)], Reason.NO_BACKEND),
    "the Service is deleted while the client waits": (
        [*WAITING, (Event.NO_BACKEND, State.CLOSED, RESET)],
        Reason.NO_BACKEND,
    ),
    "the client has finished, and the backend says nothing more": (
        [*CLIENT_FINISHED, (Event.LINGER_EXPIRED, State.CLOSED, RESET)],
        Reason.LINGER,
    ),
    "the backend has finished, and the client says nothing more": (
        [*BACKEND_FINISHED, (Event.LINGER_EXPIRED, State.CLOSED, RESET)],
        Reason.LINGER,
    ),
} | {
    f"{event} while {state}": ([*before, (event, State.CLOSED, RESET)], reason)
    for state, before in LEADS_TO.items()
    for event, reason in CUT_SHORT.items()
}


@pytest.mark.parametrize("name", ENDINGS)
def test_conversations_end(name: str) -> None:
    conversation, reason = ENDINGS[name]
    assert play(conversation).reason is reason


def test_every_row_of_the_table_is_spoken_in_a_conversation() -> None:
    spoken = set()
    for conversation, _ in ENDINGS.values():
        state = State.CONNECTING
        for event, following, _ in conversation:
            spoken.add((state, event))
            state = following
    assert spoken == {(state, event) for state, row in TRANSITIONS.items() for event in row}


@pytest.mark.parametrize("state", LEADS_TO)
def test_what_cannot_matter_any_more_is_ignored(state: State) -> None:
    for event in set(Event) - TRANSITIONS[state].keys():
        flow = play(LEADS_TO[state])
        assert flow.handle(event) == ()
        assert flow.state is state
        assert flow.reason is None


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_happens_to_a_connection_that_is_closed(name: str, event: Event) -> None:
    conversation, reason = ENDINGS[name]
    flow = play(conversation)
    assert flow.handle(event) == ()
    assert (flow.state, flow.reason) == (State.CLOSED, reason)


def test_the_table_has_a_row_for_each_state_and_a_way_out_of_all_but_closed() -> None:
    assert TRANSITIONS.keys() == set(State)
    for state in set(State) - {State.CLOSED}:
        endings = {event for event, answer in TRANSITIONS[state].items() if answer.state is State.CLOSED}
        assert endings >= CUT_SHORT.keys(), f"an operator, a reset and a shutdown must end it while {state}"
    assert TRANSITIONS[State.CLOSED] == {}


def test_a_reason_is_given_exactly_when_closing_and_each_reason_can_be() -> None:
    answers = [answer for row in TRANSITIONS.values() for answer in row.values()]
    for answer in answers:
        assert (answer.reason is not None) == (answer.state is State.CLOSED)
        assert (answer.commands in (CLOSE, RESET)) == (answer.state is State.CLOSED)
    assert {answer.reason for answer in answers} - {None} == set(Reason) - OF_SESSIONS - OF_THE_KERNEL


def test_only_a_connection_that_both_sides_finished_is_closed_in_order() -> None:
    in_order = {
        (state, event)
        for state, row in TRANSITIONS.items()
        for event, answer in row.items()
        if answer.commands == CLOSE
    }
    assert in_order == {
        (State.CLIENT_FINISHED, Event.BACKEND_FIN),
        (State.BACKEND_FINISHED, Event.CLIENT_FIN),
    }


def test_each_end_of_sending_is_handed_on_to_the_other_side() -> None:
    assert Command.FIN_TO_BACKEND in TRANSITIONS[State.ESTABLISHED][Event.CLIENT_FIN].commands
    assert Command.FIN_TO_CLIENT in TRANSITIONS[State.ESTABLISHED][Event.BACKEND_FIN].commands


@pytest.mark.parametrize(
    ("elapsed", "seconds"),
    [
        (0.0, 1.0),
        (4.0, 1.0),
        (4.25, 0.75),
        (5.0, 0.0),
        (60.0, 0.0),
    ],
)
def test_an_attempt_to_dial_gets_a_second_of_the_five_that_there_are(elapsed: float, seconds: float) -> None:
    assert DialBudget().next_attempt(elapsed) == seconds


def test_a_budget_smaller_than_an_attempt_is_all_there_is() -> None:
    assert DialBudget(attempt=3.0, total=2.0).next_attempt(0.5) == 1.5
