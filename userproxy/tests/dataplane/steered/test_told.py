"""What is told of a connection that is not, or no longer, the one that is known."""

from __future__ import annotations

import errno

import pytest

from userproxy.dataplane.steered.bounds import MEMORY_SECONDS
from userproxy.dataplane.steered.words import Known, Say
from userproxy.model.flow_key import frontend_key
from userproxy.model.service import Protocol
from userproxy.model.steering import OUTSIDE
from userproxy.tests.dataplane.steered.bench import FRONTEND, Bench, address, flow

pytestmark = pytest.mark.usefixtures("quiet")

UDP_FLOW = flow(1, protocol=Protocol.UDP)


def held_for_another(bench: Bench) -> None:
    """The first client's pod has not answered, and its packet waits for a look at the other one."""
    assert bench.first(flow(1)) == 0
    bench.decision.carried(flow(1), address(0), answered=False)
    bench.now += 1
    assert bench.decision.again(flow(1), 1, (9, 0), Known.UNANSWERED) == Say.HELD


@pytest.mark.parametrize("told", ["new", "answered", "ended", "refused"])
def test_while_a_packet_is_held_all_that_is_told_is_of_the_one_before(told: str) -> None:
    bench = Bench(2)
    held_for_another(bench)
    for pod in (address(0), address(1)):
        if told in ("ended", "refused"):
            getattr(bench.decision, told)(flow(1), pod)
        else:
            bench.decision.carried(flow(1), pod, answered=told == "answered")
    assert (bench.counted(), bench.decision.held) == ([0, 1], 1)
    bench.dialled()
    assert bench.take_settled() == [(9, 1)]


def test_it_is_not_among_those_that_conntrack_has_told_of() -> None:
    bench = Bench(2)
    held_for_another(bench)
    assert bench.decision.confirmed() == set()
    bench.decision.missing(flow(1))
    assert bench.decision.held == 1


def test_nor_is_one_of_which_it_has_yet_to_tell() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    assert bench.decision.confirmed() == set()
    bench.decision.missing(flow(1))
    assert bench.counted() == [1, 0]


def test_from_outside_a_frontend_leads_elsewhere() -> None:
    bench, outside = Bench(2), Bench(1)
    bench.decision.outside[frontend_key(Protocol.TCP, FRONTEND)] = outside.port
    assert [bench.decision.first(flow(client), 1, (client, OUTSIDE)) for client in (1, 2)] == [0, 0]
    assert (bench.counted(), outside.counted()) == ([0, 0], [2])
    assert bench.first(flow(3)) == 0


def test_a_packet_that_comes_again_behind_the_end_of_its_connection_stays_where_it_was() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    bench.now += 1
    assert bench.decision.again(flow(1), 1, (9, 0), Known.OVER) == Say.UNSTEERED


def test_a_dial_that_fails_for_a_client_is_one_that_is_tried_again() -> None:
    bench = Bench(2)
    for live in bench.service.backends:
        bench.service.dial_failed(live, errno.ECONNREFUSED)
    assert bench.first(flow(1)) == Say.HELD
    bench.dialled(errno.ECONNREFUSED)
    assert bench.counters.retried_dials == {"refused": 1}


def test_an_answer_is_timed_once_and_only_where_its_question_was_seen() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    for _ in range(2):
        bench.decision.carried(flow(1), address(0), answered=True)
    bench.decision.carried(flow(2), address(1), answered=True)  # which the rules chose
    bench.first(UDP_FLOW, 0)
    bench.decision.carried(UDP_FLOW, address(1), answered=True)
    assert sum(bench.counters.dial_seconds.counts) == 1
    assert bench.service.backends[1].latency is None


def test_a_flow_that_nobody_answered_is_over_and_says_nothing_of_its_pod() -> None:
    bench = Bench(1)
    bench.first(UDP_FLOW, 0)
    bench.decision.carried(UDP_FLOW, address(0), answered=False)
    bench.decision.refused(UDP_FLOW, address(0))
    assert (len(bench.decision), bench.decision.to_dial) == (0, [])


def test_nor_does_a_connection_whose_client_has_long_given_up() -> None:
    bench = Bench(1)
    bench.first(flow(1))
    bench.decision.carried(flow(1), address(0), answered=False)
    bench.now += MEMORY_SECONDS
    bench.decision.refused(flow(1), address(0))
    assert (len(bench.decision), bench.decision.to_dial) == (0, [])


def test_a_datagram_is_never_held_for_a_dial() -> None:
    bench = Bench(1)
    bench.service.dial_failed(bench.service.backends[0], errno.ECONNREFUSED)
    assert bench.first(UDP_FLOW, 0) == 0
    assert bench.decision.to_dial == []


def test_nobody_is_sent_to_a_pod_by_an_index_of_what_is_steered_no_longer() -> None:
    bench = Bench(1)
    assert bench.first(flow(1)) == 0
    bench.decision.stop(bench.port)
    assert bench.first(flow(1)) == Say.LOOK
    assert bench.port.places == {}


def test_who_gives_up_the_queue_knows_nothing_of_those_that_waited() -> None:
    bench = Bench(2)
    held_for_another(bench)
    bench.decision.let_go()
    assert bench.take_settled() == [(9, Say.UNSTEERED)]
    assert (len(bench.decision), bench.counted()) == (0, [0, 0])
