"""Whatever happens to a connection, and in whatever order: it ends once, and nothing of it is left."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from userproxy.dataplane.tcp.lifecycle import Command, Event, Flow, State
from userproxy.model.endings import Reason
from userproxy.model.settings import Balance, NoEndpoints, Settings
from userproxy.tests.dataplane.rig.proxy import Proxy
from userproxy.tests.sockets import Sockets, open_fds

ENDS = {Command.CLOSE, Command.RESET}
CUTS = (
    Event.KILLED,
    Event.SHUTDOWN,
    Event.CLIENT_RESET,
    Event.BACKEND_RESET,
    Event.AGED,
    Event.BACKEND_REMOVED,
)


@given(st.lists(st.sampled_from(Event)), st.sampled_from(CUTS))
def test_a_flow_ends_exactly_once_and_says_why(events: list[Event], last: Event) -> None:
    flow = Flow()
    commands: list[Command] = []
    for event in (*events, last, *events):
        was_over = flow.state is State.CLOSED
        given_now = flow.handle(event)
        assert not (was_over and given_now)
        commands += given_now
    assert flow.state is State.CLOSED
    assert isinstance(flow.reason, Reason)
    assert sum(command in ENDS for command in commands) == 1
    assert commands[-1] in ENDS
    assert commands.count(Command.RELAY) <= 1
    assert commands.count(Command.FIN_TO_BACKEND) <= 1
    assert commands.count(Command.FIN_TO_CLIENT) <= 1


HAPPENINGS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.25, 0.8, 1.0])),
    st.tuples(st.just("serve"), st.sampled_from([0b000, 0b001, 0b010, 0b101, 0b111])),
    st.tuples(st.just("event"), st.sampled_from(CUTS)),
    st.tuples(st.sampled_from(["accept", "dispatch", "leave"]), st.none()),
)


@given(
    st.lists(st.sampled_from("asr"), min_size=3, max_size=3),
    st.sampled_from(Balance),
    st.sampled_from(NoEndpoints),
    st.lists(HAPPENINGS, max_size=12),
)
def test_connections_leak_nothing(
    kinds: list[str], balance: Balance, no_endpoints: NoEndpoints, happenings: list[tuple[str, object]]
) -> None:
    before = open_fds()
    with ExitStack() as stack:
        proxy = Proxy(Sockets(stack))
        make = {"a": proxy.listening, "s": proxy.silent, "r": proxy.bound}
        pods = [make[kind]() for kind in kinds]
        settings = Settings(
            balance=balance,
            hedged_dial=0.25,
            slow_start=1.0,
            no_endpoints=no_endpoints,
            hold_connections=2,
            hold_timeout=1.5,
        )

        def serve(mask: int) -> None:
            served = (pod for place, pod in enumerate(pods) if mask >> place & 1)
            proxy.serve(*served, settings=settings)

        serve(0b111)
        clients = [proxy.accept()[1]]
        for what, detail in happenings:
            if what == "wait" and isinstance(detail, float):
                proxy.clock.now += detail
                proxy.timers.tick()
            elif what == "serve" and isinstance(detail, int):
                serve(detail)
            elif what == "event" and isinstance(detail, Event):
                for connection in list(proxy.table.live.values()):
                    connection.end(detail)
            elif what == "accept":
                clients.append(proxy.accept()[1])
            elif what == "leave":
                clients.pop(0).close() if clients else None
            proxy.poller.dispatch()
        opened = proxy.table.counters.connections_opened
        for connection in list(proxy.table.live.values()):
            connection.end(Event.SHUTDOWN)
        assert proxy.nothing_is_left()
        assert sum(proxy.table.counters.connections_ended.values()) == opened
        proxy.pipes.close()
    assert open_fds() == before
