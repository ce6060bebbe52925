"""What is said of first packets, as conversations."""

from __future__ import annotations

import errno

import pytest
from msgspec.structs import replace

from userproxy.dataplane.steered import decision as module
from userproxy.dataplane.steered.bounds import HELD_SECONDS, MEMORY_SECONDS, MOST_HELD
from userproxy.dataplane.steered.words import Known, Say
from userproxy.model.service import Protocol
from userproxy.model.settings import Balance, NoEndpoints, Settings
from userproxy.tests.dataplane.steered.bench import Bench, address, flow

pytestmark = pytest.mark.usefixtures("quiet")

HOLDING = Settings(no_endpoints=NoEndpoints.HOLD, hold_connections=2, hold_timeout=10.0)


def test_backends_take_turns_and_each_connection_is_counted() -> None:
    bench = Bench(3)
    assert [bench.first(flow(client)) for client in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert bench.counted() == [3, 2, 2]
    assert bench.service.connections == 7


def test_while_the_kernel_is_told_of_an_index_it_is_not_said_and_the_rules_choose() -> None:
    bench = Bench(2)
    bench.update([0, 2, 3], 1, 2)
    assert [bench.first(flow(client)) for client in range(3)] == [0, Say.UNSTEERED, Say.UNSTEERED]
    assert bench.counted() == [1, 0, 0]
    bench.update([0, 2, 3])
    assert [bench.first(flow(client)) for client in range(3, 6)] == [0, 1, 2]


def sticky(bench: Bench, *moving: int) -> None:
    """Clients keep their backends; the kernel is being told of these indices."""
    bench.port.update(replace(bench.port.steer, affinity=100.0, moving=moving))


def test_a_client_for_whom_the_rules_chose_keeps_that_backend() -> None:
    bench = Bench(3)
    sticky(bench)
    bench.decision.carried(flow(1, 1), address(2), answered=False)
    assert [bench.first(flow(1, port)) for port in (2, 3)] == [2, 2]
    bench.decision.carried(flow(1, 4), address(0), answered=False)
    assert bench.first(flow(1, 5)) == 2, "which is older than what is known of the client"


def test_a_client_that_has_a_backend_keeps_it_while_the_kernel_is_told_and_nothing_is_heard_of_it() -> None:
    bench = Bench(3)
    sticky(bench)
    assert [bench.first(flow(client, 1)) for client in (1, 2)] == [0, 1]
    sticky(bench, 1, 2)
    assert bench.first(flow(2, 2)) == Say.UNSTEERED
    sticky(bench)
    assert bench.first(flow(2, 3)) == 1


def test_an_old_connection_says_nothing_of_where_a_client_is_now() -> None:
    bench = Bench(3)
    sticky(bench)
    bench.decision.carried(flow(1, 1), address(2), answered=True)
    assert bench.first(flow(1, 2)) == 0


def test_a_client_for_whom_the_rules_choose_while_the_kernel_is_told_keeps_that_backend() -> None:
    bench = Bench(3)
    sticky(bench, 0)
    assert bench.first(flow(1, 1)) == Say.UNSTEERED
    bench.decision.carried(flow(1, 1), address(1), answered=False)
    sticky(bench)
    assert [bench.first(flow(1, port)) for port in (2, 3)] == [1, 1]


def test_without_affinity_it_does_not_matter_for_whom_the_rules_chose() -> None:
    bench = Bench(3)
    bench.decision.carried(flow(1, 1), address(2), answered=False)
    assert bench.first(flow(1, 2)) == 0


def test_whoever_waits_goes_on_once_the_kernel_has_been_told_of_the_first_pod() -> None:
    bench = Bench(0, HOLDING)
    assert bench.first(flow(1)) == Say.HELD
    bench.update([0], 0)
    assert bench.take_settled() == []
    bench.update([0])
    assert bench.take_settled() == [(1, 0)]


def test_what_is_no_frontend_of_ours_goes_on_as_it_came() -> None:
    bench = Bench(1)
    bench.decision.frontends.clear()
    assert bench.first(flow(1)) == Say.UNSTEERED
    assert len(bench.decision) == 0


@pytest.mark.parametrize("limits", [Settings(max_connections=2), Settings(max_connections_per_client=2)])
def test_limits_are_the_rules_until_all_connections_are_known(limits: Settings) -> None:
    bench = Bench(1, limits)
    bench.port.listed = False
    assert bench.first(flow(1, 1)) == Say.UNSTEERED
    for port in (1, 2):
        bench.decision.carried(flow(1, port), address(0), answered=True)
    bench.decision.listed()
    assert bench.first(flow(1, 3)) == Say.REFUSE
    bench.decision.ended(flow(1, 1), address(0))
    assert bench.first(flow(1, 3)) == 0


def test_who_has_no_limits_is_chosen_for_at_once() -> None:
    bench = Bench(1)
    bench.port.listed = False
    assert bench.first(flow(1)) == 0


def test_a_packet_that_comes_again_without_an_answer_goes_elsewhere() -> None:
    bench = Bench(2)
    assert bench.first(flow(1)) == 0
    bench.now += 1
    assert bench.first(flow(1)) == Say.LOOK
    assert bench.decision.again(flow(1), 1, (2, 0), Known.UNANSWERED) == Say.HELD
    assert bench.counters.failed_dials == {"timeout": 1}
    assert bench.counters.retried_dials == {"timeout": 1}
    assert bench.dialled(errno.ETIMEDOUT, failing=[0]) == [0, 1]
    assert bench.take_settled() == [(2, 1)]
    assert bench.counted() == [0, 1]
    assert [live.outlier.failures for live in bench.service.backends] == [2, 0]


@pytest.mark.parametrize("known", [Known.UNANSWERED, Known.NOTHING])
def test_whom_nobody_answers_blames_no_pod_that_answers_us(known: Known) -> None:
    """A network policy is against him, or his checksums are wrong."""
    bench = Bench(4)
    for client in range(8):
        bench.first(flow(client))
    bench.now += 1
    for client in range(8):
        bench.decision.again(flow(client), 1, (client, 0), known)
    assert not any(live.ejected for live in bench.service.backends)
    assert bench.dialled() == [0, 1, 2, 3]
    assert not any(live.outlier.failures for live in bench.service.backends)


def test_nor_is_he_refused_as_if_his_pod_had_said_so() -> None:
    """What conntrack has never told of has not left this node: perhaps it had no room for it."""
    bench = Bench(1)
    bench.first(flow(1))
    bench.now += 1
    assert bench.decision.again(flow(1), 1, (2, 0), Known.NOTHING) == Say.HELD
    bench.dialled()
    assert bench.take_settled() == [(2, 0)]


def test_a_packet_that_comes_again_though_it_was_answered_stays_where_it_is() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    bench.now += 1
    assert bench.first(flow(1)) == Say.LOOK
    assert bench.decision.again(flow(1), 1, (2, 0), Known.LIVE) == Say.UNSTEERED
    assert bench.counted() == [1, 0]
    assert not bench.counters.failed_dials


def test_a_packet_that_was_doubled_is_no_failure() -> None:
    bench = Bench(2)
    assert [bench.first(flow(1)), bench.first(flow(1))] == [0, 0]
    assert bench.counted() == [1, 0]


def refuse(bench: Bench, number: int) -> None:
    """The backend answers the first client with a reset, which it does not hear."""
    bench.decision.carried(flow(1), address(number), answered=False)
    bench.decision.refused(flow(1), address(number))
    assert bench.dialled(errno.ECONNREFUSED) == [number]
    bench.now += 1


def test_whom_all_refuse_is_refused_and_may_come_again() -> None:
    bench = Bench(2)
    assert bench.first(flow(1)) == 0
    refuse(bench, 0)
    assert bench.first(flow(1)) == Say.HELD
    bench.dialled()
    assert bench.take_settled() == [(2, 1)]
    refuse(bench, 1)
    assert bench.first(flow(1)) == Say.REFUSE
    assert (bench.counted(), len(bench.decision)) == ([0, 0], 0)
    assert bench.first(flow(1), sequence=2) == Say.HELD


def test_one_packet_that_comes_again_is_enough_where_all_but_one_refuse() -> None:
    bench = Bench(4)
    assert bench.first(flow(1)) == 0
    refuse(bench, 0)
    assert bench.first(flow(1)) == Say.HELD
    assert [bench.dialled(errno.ECONNREFUSED) for _ in range(2)] == [[1], [2]]
    assert bench.dialled() == [3]
    assert bench.take_settled() == [(2, 3)]


def test_the_only_one_refuses_and_so_the_second_packet_is_refused() -> None:
    bench = Bench(1)
    bench.first(flow(1))
    refuse(bench, 0)
    assert bench.first(flow(1)) == Say.REFUSE


def test_whom_dials_refuse_while_it_is_held_is_refused() -> None:
    bench = Bench(2)
    for live in bench.service.backends:
        bench.service.dial_failed(live, errno.ECONNREFUSED)
    assert bench.first(flow(1)) == Say.HELD
    bench.dialled(errno.ECONNREFUSED)
    bench.dialled(errno.ECONNREFUSED)
    assert bench.take_settled() == [(1, Say.REFUSE)]
    assert len(bench.decision) == 0


def test_one_packet_that_was_lost_refuses_nobody_whose_service_has_one_pod() -> None:
    bench = Bench(1)
    bench.first(flow(1))
    bench.now += 1
    assert bench.decision.again(flow(1), 1, (9, 0), Known.UNANSWERED) == Say.HELD
    bench.dialled()
    assert bench.take_settled() == [(9, 0)]


def test_whom_all_refused_waits_if_there_are_none_by_now() -> None:
    bench = Bench(1, HOLDING)
    bench.first(flow(1))
    refuse(bench, 0)
    bench.update([])
    assert bench.first(flow(1)) == Say.HELD


def test_when_all_have_failed_and_one_was_silent_it_begins_anew() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    seen = []
    for _ in range(3):
        bench.now += 1
        answer = bench.decision.again(flow(1), 1, (9, 0), Known.UNANSWERED)
        if answer == Say.HELD:  # it has failed before
            bench.dialled()
            ((_, answer),) = bench.take_settled()
        seen.append(answer)
    assert seen[0] == 1
    assert set(seen[1:]) == {0, 1}
    assert sum(bench.counted()) == 1


def test_another_connection_of_the_same_port_is_a_new_one() -> None:
    bench = Bench(2)
    bench.first(flow(1), sequence=1)
    bench.now += 5
    assert bench.first(flow(1), sequence=2) == Say.LOOK
    assert bench.decision.again(flow(1), 2, (2, 0), Known.OVER) == 1
    assert bench.counted() == [0, 1]
    assert not bench.counters.failed_dials


def test_one_that_the_kernel_still_carries_is_left_where_it_is() -> None:
    bench = Bench(2)
    bench.first(flow(1), sequence=1)
    assert bench.first(flow(1), sequence=2) == Say.LOOK
    assert bench.decision.again(flow(1), 2, (2, 0), Known.LIVE) == Say.UNSTEERED
    assert bench.counted() == [1, 0]


def test_after_a_refusal_the_next_packet_goes_elsewhere() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    bench.decision.carried(flow(1), address(0), answered=False)
    bench.decision.refused(flow(1), address(0))
    assert bench.counted() == [0, 0]
    bench.now += 1
    assert bench.dialled(errno.ECONNREFUSED) == [0]
    assert bench.first(flow(1)) == Say.HELD
    assert bench.dialled() == [1]
    assert bench.take_settled() == [(2, 1)]


def test_a_pod_that_is_said_to_refuse_is_dialled_before_it_is_blamed() -> None:
    """A client that resets what nobody has answered yet looks the same."""
    bench = Bench(2)
    for number in (1, 3):  # both on the first backend
        bench.first(flow(number))
        bench.first(flow(number + 1))
        bench.decision.carried(flow(number), address(0), answered=False)
    bench.decision.refused(flow(1), address(0))
    bench.decision.refused(flow(3), address(0))
    assert not bench.counters.failed_dials
    ((port, live),) = bench.decision.to_dial  # once for both
    bench.decision.dialled(port, live, errno.ECONNREFUSED, 0.001)
    assert bench.counters.failed_dials == {"refused": 1}


def test_one_that_was_answered_and_then_fails_is_over_and_its_pod_is_not_blamed() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    bench.decision.carried(flow(1), address(0), answered=True)
    bench.decision.refused(flow(1), address(0))
    assert (bench.counted(), len(bench.decision)) == ([0, 0], 0)
    assert not bench.counters.failed_dials


def test_a_refusal_that_nobody_told_of_is_seen_when_the_packet_comes_again() -> None:
    bench = Bench(1)
    bench.first(flow(1))
    bench.decision.carried(flow(1), address(0), answered=False)
    bench.now += 1
    assert bench.first(flow(1)) == Say.LOOK
    assert bench.decision.again(flow(1), 1, (2, 0), Known.NOTHING) == Say.REFUSE
    assert bench.dialled(errno.ECONNREFUSED) == [0]
    assert bench.counters.failed_dials == {"refused": 2}


def test_that_a_former_entry_is_gone_says_nothing_of_its_successor() -> None:
    bench = Bench(2)
    bench.first(flow(1))
    bench.decision.again(flow(1), 1, (2, 0), Known.UNANSWERED)
    bench.decision.refused(flow(1), address(0))
    bench.decision.ended(flow(1), address(0))
    assert bench.counted() == [0, 1]


@pytest.mark.parametrize("told", ["ended", "refused"])
def test_nor_if_both_are_on_the_same_backend(told: str) -> None:
    """The entry of the one before goes when its time is over, and then the kernel tells so."""
    bench = Bench(1)
    bench.first(flow(1), sequence=1)
    bench.decision.carried(flow(1), address(0), answered=True)
    bench.now += 5
    assert bench.first(flow(1), sequence=2) == Say.LOOK
    assert bench.decision.again(flow(1), 2, (2, 0), Known.OVER) == 0
    getattr(bench.decision, told)(flow(1), address(0))
    assert bench.counted() == [1]
    assert not bench.counters.failed_dials
    bench.decision.carried(flow(1), address(0), answered=True)
    bench.decision.ended(flow(1), address(0))
    assert bench.counted() == [0]


@pytest.fixture
def suspicious() -> Bench:
    """Two backends that clients keep; the first has failed once, and it is its turn."""
    bench = Bench(2)
    sticky(bench)
    bench.service.dial_failed(bench.service.backends[0], errno.ECONNREFUSED)
    return bench


def test_a_packet_is_held_until_the_dial_is_answered(suspicious: Bench) -> None:
    assert suspicious.first(flow(1)) == Say.HELD
    assert not suspicious.take_settled()
    assert suspicious.dialled() == [0]
    assert suspicious.take_settled() == [(suspicious.token, 0)]
    assert suspicious.service.backends[0].outlier.failures == 0
    assert suspicious.first(flow(2)) == 1
    assert suspicious.first(flow(3)) == 0


def test_nobody_is_sent_to_a_backend_that_is_just_being_looked_at() -> None:
    bench = Bench(2)
    sticky(bench)
    bench.first(flow(1))
    bench.decision.carried(flow(1), address(0), answered=False)
    bench.decision.refused(flow(1), address(0))
    assert [bench.first(flow(client)) for client in (2, 3)] == [1, Say.HELD]
    assert bench.dialled(errno.ECONNREFUSED) == [0]
    assert bench.dialled() == [1]
    assert bench.take_settled() == [(bench.token, 1)]


def test_a_dial_that_fails_sends_it_elsewhere(suspicious: Bench) -> None:
    assert suspicious.first(flow(1)) == Say.HELD
    assert suspicious.dialled(errno.ECONNREFUSED) == [0]
    assert suspicious.dialled() == [1], "it has waited, and need not be sent to another one that fails"
    assert suspicious.take_settled() == [(suspicious.token, 1)]
    assert suspicious.counted() == [0, 1]


def test_one_dial_tells_all_that_wait_for_it(suspicious: Bench) -> None:
    assert [suspicious.first(flow(client)) for client in (1, 2, 3)] == [Say.HELD, 1, Say.HELD]
    assert suspicious.dialled(errno.ECONNREFUSED) == [0]
    assert suspicious.dialled() == [1]
    assert suspicious.take_settled() == [(1, 1), (3, 1)]


def test_whoever_sends_again_meanwhile_has_one_packet_held(suspicious: Bench) -> None:
    assert suspicious.first(flow(1)) == Say.HELD
    assert suspicious.first(flow(1)) == Say.DROP
    assert suspicious.decision.held == 1


def test_nobody_is_held_for_longer_than_is_bearable(suspicious: Bench) -> None:
    suspicious.service.dial_failed(suspicious.service.backends[1], errno.ECONNREFUSED)
    assert suspicious.first(flow(1)) == Say.HELD
    suspicious.now += HELD_SECONDS
    suspicious.dialled(errno.ETIMEDOUT)
    assert suspicious.take_settled() == [(1, 1)]


def test_with_all_places_taken_it_goes_on_at_once(suspicious: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 0)
    assert MOST_HELD
    assert suspicious.first(flow(1)) == 0


def doubted(count: int, *failed: int, balance: Balance = Balance.ROUND_ROBIN) -> Bench:
    """So many backends, of which these have failed once."""
    bench = Bench(count, Settings(balance=balance))
    for number in failed:
        bench.service.dial_failed(bench.service.backends[number], errno.ECONNREFUSED)
    return bench


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_CONNECTIONS, Balance.RANDOM_TWO])
def test_who_may_go_elsewhere_waits_for_no_dial(balance: Balance) -> None:
    bench = doubted(4, 0, 1, 3, balance=balance)
    assert [bench.first(flow(client)) for client in range(8)] == [2] * 8
    assert (bench.counted(), bench.decision.held) == ([0, 0, 8, 0], 0)


def test_each_that_is_passed_over_is_dialled_and_has_its_turn_again_when_it_answers() -> None:
    bench = doubted(3, 0, 1)
    assert bench.first(flow(1)) == 2
    assert bench.dialled() == [0, 1]
    assert [bench.first(flow(client)) for client in range(2, 8)] == [0, 1, 2, 0, 1, 2]


def test_the_probe_of_one_that_was_ejected_holds_nobody() -> None:
    bench = doubted(3)
    ejected = bench.service.backends[1]
    while not ejected.ejected:
        bench.service.dial_failed(ejected, errno.ECONNREFUSED)
    assert [bench.first(flow(client)) for client in range(4)] == [0, 2, 0, 2]
    bench.now = ejected.outlier.until
    assert bench.first(flow(4)) == 0
    assert bench.dialled() == [1]
    assert not ejected.ejected


def test_whoever_is_ejected_stands_in_for_nobody() -> None:
    bench = doubted(2, 0)
    ejected = bench.service.backends[1]
    while not ejected.ejected:
        bench.service.dial_failed(ejected, errno.ECONNREFUSED)
    assert bench.first(flow(1)) == Say.HELD
    assert bench.dialled() == [0]


def test_where_all_are_in_doubt_it_waits() -> None:
    bench = doubted(2, 0, 1)
    assert bench.first(flow(1)) == Say.HELD
    assert bench.dialled() == [0]
    assert bench.take_settled() == [(1, 0)]


def test_so_does_who_belongs_to_the_backend_in_doubt() -> None:
    answers = []
    for client in range(20):
        bench = doubted(2, 0, balance=Balance.SOURCE_HASH)
        answers.append(bench.first(flow(client)))
    assert set(answers) == {Say.HELD, 1}


def test_and_whose_next_ones_are_all_in_doubt() -> None:
    """Each new one would cost a look at each of a thousand."""
    bench = doubted(20, *range(19))
    assert bench.first(flow(1)) == Say.HELD


def test_a_datagram_waits_for_nothing_and_no_dial_says_anything_of_its_pod() -> None:
    bench = doubted(2, 0)
    assert bench.first(flow(1, protocol=Protocol.UDP), 0) == 0
    assert bench.decision.to_dial == []


def test_what_is_short_here_is_not_the_backends_fault(suspicious: Bench) -> None:
    suspicious.first(flow(1))
    suspicious.dialled(errno.EMFILE)
    assert suspicious.take_settled() == [(1, 0)]


def test_one_that_was_removed_meanwhile_is_not_gone_to(suspicious: Bench) -> None:
    suspicious.first(flow(1))
    suspicious.update([1])
    suspicious.dialled()
    assert suspicious.take_settled() == [(1, 0)]
    assert suspicious.counted() == [1]


def test_a_service_port_has_as_many_connections_as_it_may() -> None:
    bench = Bench(2, Settings(max_connections=2))
    assert [bench.first(flow(client)) for client in range(3)] == [0, 1, Say.REFUSE]
    bench.decision.carried(flow(0), address(0), answered=True)
    bench.decision.ended(flow(0), address(0))
    assert bench.first(flow(4)) == 0
    assert bench.counters.clients_turned_away == 1


def test_so_has_a_client() -> None:
    bench = Bench(2, Settings(max_connections_per_client=1))
    assert bench.first(flow(1, 1)) == 0
    assert bench.first(flow(1, 2)) == Say.REFUSE
    assert bench.first(flow(2, 1)) == 1


def test_without_endpoints_it_is_refused() -> None:
    assert Bench(0).first(flow(1)) == Say.REFUSE


def test_they_go_on_when_endpoints_come() -> None:
    bench = Bench(0, HOLDING)
    assert [bench.first(flow(client)) for client in range(3)] == [Say.HELD, Say.HELD, Say.REFUSE]
    assert bench.decision.to_tell == [bench.port]
    bench.update([0, 1])
    assert bench.take_settled() == [(1, 0), (2, 1)]
    assert bench.counted() == [1, 1]
    assert bench.decision.held == 0


def test_not_for_ever() -> None:
    bench = Bench(0, HOLDING)
    bench.first(flow(1))
    bench.now += HOLDING.hold_timeout
    bench.decision.expire()
    assert bench.take_settled() == [(1, Say.REFUSE)]
    assert len(bench.decision) == 0


def test_not_for_what_is_steered_no_longer() -> None:
    bench = Bench(0, HOLDING)
    bench.first(flow(1))
    bench.service.retire()
    bench.decision.stop(bench.port)
    assert bench.take_settled() == [(1, Say.REFUSE)]


def test_one_that_was_not_chosen_for_is_counted_all_the_same() -> None:
    bench = Bench(2)
    bench.decision.carried(flow(1), address(1), answered=True)
    assert bench.counted() == [0, 1]
    bench.decision.ended(flow(1), address(1))
    assert bench.counted() == [0, 0]


def test_it_is_counted_where_the_kernel_has_it() -> None:
    bench = Bench(2)
    assert bench.first(flow(1)) == 0
    bench.decision.carried(flow(1), address(1), answered=False)
    assert bench.counted() == [0, 1]


def test_one_that_it_says_nothing_of_is_forgotten_in_the_end() -> None:
    bench = Bench(1)
    bench.first(flow(1))
    bench.decision.carried(flow(1), address(0), answered=False)
    bench.first(flow(2))
    bench.now += MEMORY_SECONDS
    bench.decision.expire()
    assert bench.service.connections == 1


def test_nor_is_one_kept_by_another_that_begins_anew_all_the_time() -> None:
    bench = Bench(3)
    assert bench.first(flow(1)) == 0
    refuse(bench, 0)
    assert bench.first(flow(2)) == 1
    bench.now += MEMORY_SECONDS - 1
    assert bench.first(flow(1), sequence=2) == 2
    bench.now += 1
    bench.decision.expire()
    assert bench.service.connections == 1


def test_a_flood_of_first_packets_takes_so_much_room_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNCONFIRMED", 10)
    bench = Bench(1)
    for client in range(100):
        bench.first(flow(client))
    assert len(bench.decision) == bench.service.connections == 10


def test_how_long_a_backend_took_to_answer_is_noted() -> None:
    bench = Bench(1)
    bench.first(flow(1))
    bench.now += 0.25
    bench.decision.carried(flow(1), address(0), answered=True)
    assert bench.service.backends[0].latency == 0.25


def test_several_before_conntrack_knows_the_flow_go_to_the_same() -> None:
    bench = Bench(2)
    udp = flow(1, protocol=Protocol.UDP)
    assert [bench.first(udp, 0) for _ in range(3)] == [0, 0, 0]
    assert bench.service.connections == 1


def test_a_flow_whose_pod_has_left_is_chosen_for_anew_and_no_datagram_is_taken_for_a_dial() -> None:
    bench = Bench(2)
    udp = flow(1, protocol=Protocol.UDP)
    assert bench.first(udp, 0) == 0
    bench.update([1])
    assert bench.first(udp, 0) == Say.LOOK
    assert bench.decision.again(udp, 0, (2, 0), Known.NOTHING) == 0
    assert bench.counted() == [1]
    assert (bench.counters.failed_dials, bench.decision.to_dial) == ({}, [])


def test_a_flow_that_begins_again_is_chosen_for_again() -> None:
    bench = Bench(2)
    udp = flow(1, protocol=Protocol.UDP)
    bench.first(udp, 0)
    bench.now += 40
    assert bench.first(udp, 0) == 1
    assert bench.counted() == [0, 1]


def test_least_connections_is_exact() -> None:
    bench = Bench(3, Settings(balance=Balance.LEAST_CONNECTIONS))
    chosen = {}
    for client in range(100):
        chosen[client] = bench.first(flow(client))
        bench.decision.carried(flow(client), address(chosen[client]), answered=True)
    for client in range(0, 100, 3):
        bench.decision.ended(flow(client), address(chosen[client]))
    for client in range(100, 200):
        bench.first(flow(client))
    assert max(bench.counted()) - min(bench.counted()) <= 1


def test_what_conntrack_should_have_told_of_and_does_not_list_is_over() -> None:
    bench = Bench(1)
    for client in (1, 2):
        assert bench.first(flow(client)) == 0
    bench.now += 1
    assert bench.first(flow(3)) == 0
    assert bench.decision.unheard() == {flow(1): bench.now - 1, flow(2): bench.now - 1}
    bench.decision.missing(flow(1), bench.now - 1)
    bench.decision.missing(flow(2), bench.now - 2)  # it has come again since
    bench.decision.missing(flow(3))
    assert bench.counted() == [2]
