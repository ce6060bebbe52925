"""What is written down of connections that the kernel carried: each once, with why it ended, and no guess."""

from __future__ import annotations

import errno
from itertools import pairwise

import msgspec
import pytest

from userproxy.dataplane.recorder import Recorder
from userproxy.dataplane.steered.words import Known, Say
from userproxy.model.address import Address
from userproxy.model.carried import Counts, End, How
from userproxy.model.endings import Reason
from userproxy.model.filter import RecordFilter
from userproxy.model.flow_key import flow_key
from userproxy.model.records import Record, row_of
from userproxy.model.service import Path, Protocol
from userproxy.model.settings import NoEndpoints, Settings
from userproxy.tests.dataplane.steered.bench import FRONTEND, Bench, address, flow

NUMBER = 3_141_592_653
COUNTS = Counts(packets_up=5, bytes_up=400, packets_down=4, bytes_down=300)


class Kept:
    """A bench with a recorder."""

    def __init__(self, count: int = 2, settings: Settings | None = None) -> None:
        self.bench = Bench(count, settings)
        self.recorder = Recorder(100)
        ledger = self.bench.decision.ledger
        ledger.keep, ledger.name, ledger.by_service = self.recorder.keep, 77, True

    @property
    def records(self) -> list[Record]:
        """The oldest first."""
        return [one for chunk in self.recorder.matching(RecordFilter()) for one in chunk]

    def begin(self, key: bytes) -> Address:
        """A connection that is answered after 1 ms; its backend."""
        backend = address(self.bench.first(key))
        self.bench.decision.carried(key, backend, answered=False)
        self.bench.now += 0.001
        self.bench.decision.carried(key, backend, answered=True)
        return backend


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (How.CLIENT_FIRST, Reason.CLIENT_FIN),
        (How.BACKEND_FIRST, Reason.BACKEND_FIN),
        (How.RESET, Reason.RESET),
        (How.EXPIRED, Reason.FORGOTTEN),
        (How.DELETED, Reason.FORGOTTEN),
    ],
)
def test_it_is_told_how_it_ended(how: How, reason: Reason) -> None:
    kept, key = Kept(), flow(3, 40_000)
    backend = kept.begin(key)
    kept.bench.now += 3.0
    kept.bench.decision.ended(key, backend, End(how, NUMBER))
    (record,) = kept.records
    row = row_of(record)
    assert (row.id, row.reason, row.path) == (f"ct-{NUMBER}", reason.value, "steered")
    assert (row.client, row.source) == ("10.0.9.3:40000", "10.0.9.3:40000")
    assert (row.frontend, row.backend, row.service) == (str(FRONTEND), str(backend), "default/web")
    assert (row.duration_seconds, row.dial_ms, row.connected_ms) == (3.001, 1.0, 1.0)
    assert (row.bytes_up, row.bytes_down, row.packets_up) == (None, None, None)
    assert row.unknown == ("bytes_up", "bytes_down")
    assert kept.bench.counters.connections_ended == {reason.value: 1}


def test_what_was_counted_is_told_and_added_up() -> None:
    kept, key = Kept(), flow(3, 40_000)
    seen = Address("10.100.0.2", 50_000)
    kept.bench.decision.ended(key, kept.begin(key), End(How.CLIENT_FIRST, NUMBER, seen, COUNTS))
    (record,) = kept.records
    assert (record.bytes_up, record.bytes_down) == (400, 300)
    assert (record.packets_up, record.packets_down, record.source) == (5, 4, seen)
    counters = kept.bench.counters
    assert counters.relayed_bytes == {"up": 400, "down": 300}
    assert counters.service_connections_opened == {"default/web": 1}
    assert sum(counters.service_relayed_bytes.values()) == 700
    kept.bench.decision.ledger.forget(kept.bench.port.steer.service)
    assert not counters.service_connections_opened
    assert not counters.service_relayed_bytes


def test_where_nobody_counts_no_bytes_are_added_up() -> None:
    kept, key = Kept(), flow(3, 40_000)
    kept.bench.decision.ended(key, kept.begin(key), End(How.RESET, NUMBER))
    assert not kept.bench.counters.relayed_bytes
    assert kept.bench.counters.service_failed_connections == {"default/web": 1}


def test_who_is_to_be_ended_by_the_control_side_ends_for_its_reason() -> None:
    kept, key = Kept(), flow(3, 40_000)
    backend = kept.begin(key)
    known = kept.bench.decision.get(key)
    assert known is not None
    known.reason = Reason.KILLED
    kept.bench.decision.ended(key, backend, End(How.DELETED, NUMBER))
    assert [record.reason for record in kept.records] == [Reason.KILLED]


def test_one_that_was_found_in_a_list_says_that_it_is_older() -> None:
    kept, key = Kept(), flow(3, 40_000)
    kept.bench.decision.carried(key, address(0), answered=True)
    kept.bench.decision.missing(key)
    (record,) = kept.records
    assert (record.reason, record.found) == (Reason.FORGOTTEN, True)
    assert row_of(record).started_at == ""


def test_a_client_that_all_pods_refuse_is_told_with_its_dials() -> None:
    kept, key = Kept(2), flow(3, 40_000)
    bench = kept.bench
    for _ in range(2):
        said = bench.first(key)
        if said == Say.HELD:
            bench.dialled()
            said = bench.take_settled()[-1][1]
        bench.decision.carried(key, address(said), answered=False)
        bench.now += 0.5
        bench.decision.refused(key, address(said), End(How.RESET, NUMBER))
        bench.now += 0.5
    assert kept.records == [], "it is not over: the client sends again"
    assert bench.first(key) == Say.REFUSE
    (record,) = kept.records
    assert (record.reason, record.id) == (Reason.DIAL_FAILED, "77-1")
    attempts = row_of(record).attempts
    assert {one.backend for one in attempts} == {str(address(0)), str(address(1))}
    assert {one.error for one in attempts} == {"refused"}
    assert all(before.at_ms < after.at_ms for before, after in pairwise(attempts))


def test_a_client_that_is_never_answered_and_gives_up_is_told() -> None:
    kept, key = Kept(), flow(3, 40_000)
    bench = kept.bench
    backend = address(bench.first(key))
    bench.decision.carried(key, backend, answered=False)
    bench.now += 120.0
    bench.decision.refused(key, backend, End(How.EXPIRED, NUMBER))
    assert [record.reason for record in kept.records] == [Reason.DIAL_FAILED]


def test_who_is_not_let_in_is_told() -> None:
    kept = Kept(1, Settings(max_connections_per_client=1))
    kept.begin(flow(3, 40_000))
    assert kept.bench.first(flow(3, 40_001)) == Say.REFUSE
    (record,) = kept.records
    assert (record.reason, record.backend, record.source) == (Reason.TOO_MANY, None, None)
    assert (record.id, record.client) == ("77-1", Address("10.0.9.3", 40_001))


def test_who_waits_in_vain_is_told() -> None:
    kept = Kept(0, Settings(no_endpoints=NoEndpoints.HOLD, hold_timeout=5.0, hold_connections=1))
    assert kept.bench.first(flow(3, 40_000)) == Say.HELD
    assert kept.bench.first(flow(3, 40_001)) == Say.REFUSE
    kept.bench.now += 6.0
    kept.bench.decision.expire()
    assert [record.reason for record in kept.records] == [Reason.HOLD_FULL, Reason.HOLD_EXPIRED]
    assert len({record.id for record in kept.records}) == 2


def test_a_clients_port_that_comes_again_has_two_stories() -> None:
    kept, key = Kept(), flow(3, 40_000)
    kept.begin(key)
    assert kept.bench.first(key, 2) == Say.LOOK
    kept.bench.decision.again(key, 2, (9, 0), Known.NOTHING)
    assert [record.reason for record in kept.records] == [Reason.FORGOTTEN]
    assert len(kept.bench.decision) == 1


def test_a_udp_client_that_is_silent_is_idle() -> None:
    key = flow_key(Protocol.UDP, Address("fd00::3", 40_000), Address("fd00::1", 53))
    kept = Kept()
    bench = kept.bench
    bench.decision.frontends[key[:1] + key[17:33] + key[35:]] = bench.port
    backend = kept.begin(key)
    bench.decision.ended(key, backend, End(How.EXPIRED, NUMBER))
    (record,) = kept.records
    assert (record.reason, record.protocol, record.path) == (Reason.IDLE, Protocol.UDP, Path.STEERED)
    assert record.frontend == Address("fd00::1", 53)


def test_what_is_kept_is_a_record_like_any_other() -> None:
    kept, key = Kept(), flow(3, 40_000)
    kept.bench.decision.ended(key, kept.begin(key), End(How.CLIENT_FIRST, NUMBER, None, COUNTS))
    (record,) = kept.records
    (packed,) = (one for part in kept.recorder.take() for one in part)
    assert msgspec.msgpack.decode(packed, type=Record) == record
    assert len(packed) < 200
    assert kept.records == []
    heir = Recorder(1)
    heir.inherit([packed, packed])
    assert len(heir) == 1


def test_an_attempt_has_its_errno() -> None:
    kept, key = Kept(1), flow(3, 40_000)
    bench = kept.bench
    backend = address(bench.first(key))
    bench.decision.carried(key, backend, answered=False)
    bench.now += 1.0
    assert bench.first(key) == Say.LOOK
    bench.decision.again(key, 1, (9, 0), Known.UNANSWERED)
    known = bench.decision.get(key)
    assert known is not None
    assert [one.error for one in known.attempts] == [errno.ETIMEDOUT]


def test_while_another_process_has_the_queue_it_writes_down_what_ends() -> None:
    kept, key = Kept(), flow(3, 40_000)
    kept.bench.decision.ledger.is_open = False
    kept.bench.decision.ended(key, kept.begin(key), End(How.CLIENT_FIRST, NUMBER))
    assert kept.records == []
    assert not kept.bench.counters.connections_ended
