"""A record says as a row what it says in numbers, and is another version's to read too."""

from __future__ import annotations

import errno
import json

import msgspec

from userproxy.cli.timeline import story
from userproxy.model.endings import Reason
from userproxy.model.records import BY_KERNEL, GIVEN_UP, Record, Timeline, error_name, row_of
from userproxy.model.service import Path, Protocol
from userproxy.tests.records import RECORD


def test_a_row_has_all_that_is_known() -> None:
    assert json.loads(msgspec.json.encode(row_of(RECORD))) == {
        "id": "18253-4",
        "protocol": "TCP",
        "service": "default/server-service:http",
        "client": "10.0.1.3:36854",
        "frontend": "10.3.241.152:80",
        "listener": "10.100.0.2:10400",
        "source": "10.100.0.2:50001",
        "backend": "10.0.2.2:8080",
        "state": "closed",
        "path": "redirect-to-host",
        "started_at": "2026-11-27T12:03:00.000+00:00",
        "ended_at": "2026-11-27T12:03:04.250+00:00",
        "duration_seconds": 4.25,
        "attempts": [
            {"backend": "10.0.1.2:8080", "error": "refused", "at_ms": 0.1, "ms": 0.4},
            {"backend": "10.0.2.2:8080", "error": "", "at_ms": 0.6, "ms": 1.0},
        ],
        "attempts_left_out": 0,
        "dial_ms": 1.0,
        "connected_ms": 1.6,
        "first_byte_up_ms": 0.2,
        "first_byte_down_ms": 10.2,
        "half_closed_by": "client",
        "half_closed_ms": 1500.0,
        "bytes_up": 83,
        "bytes_down": 200,
        "datagrams_up": None,
        "datagrams_down": None,
        "reason": "backend-reset",
        "ended_by": "backend",
        "packets_up": None,
        "packets_down": None,
        "unknown": [],
    }


def test_of_one_that_never_got_anywhere_nothing_is_made_up() -> None:
    row = row_of(
        msgspec.structs.replace(RECORD, original=None, source=None, backend=None, timeline=Timeline())
    )
    assert (row.frontend, row.source, row.backend, row.attempts) == ("", "", "", ())
    times = (row.dial_ms, row.connected_ms, row.first_byte_up_ms, row.first_byte_down_ms, row.half_closed_ms)
    assert times == (None,) * 5
    assert row.half_closed_by == ""


def test_a_session_tells_its_datagrams_and_a_live_one_no_end() -> None:
    timeline = Timeline(asked=3, answered=2)
    row = row_of(
        msgspec.structs.replace(
            RECORD, protocol=Protocol.UDP, timeline=timeline, reason=None, state="replied"
        )
    )
    assert (row.datagrams_up, row.datagrams_down) == (3, 2)
    assert (row.state, row.ended_at, row.reason, row.ended_by) == ("replied", "", "", "")


CARRIED = Record(
    pid=BY_KERNEL,
    number=3_141_592_653,
    service=RECORD.service,
    protocol=Protocol.TCP,
    listener=None,
    began=RECORD.began,
    seconds=4.25,
    client=RECORD.client,
    bytes_up=None,
    bytes_down=None,
    reason=Reason.RESET,
    path=Path.STEERED,
    found=True,
)


def test_of_one_that_the_kernel_carried_it_is_said_what_is_not_known() -> None:
    row = row_of(CARRIED)
    assert (row.id, row.path, row.ended_by) == ("ct-3141592653", "steered", "unknown")
    assert (row.bytes_up, row.bytes_down, row.started_at) == (None, None, "")
    assert row.unknown == ("duration_seconds", "bytes_up", "bytes_down")
    assert "bytes     not known" in story(row)
    assert "it lived at least 4.25 s" in story(row)
    counted = row_of(
        msgspec.structs.replace(
            CARRIED, bytes_up=400, bytes_down=300, packets_up=5, packets_down=4, found=False
        )
    )
    assert (counted.bytes_up, counted.packets_down, counted.unknown) == (400, 4, ())
    assert "400B up, 300B down, in 5 and 4 packets" in story(counted)


def test_a_record_survives_encoding_and_one_of_an_older_version_is_understood() -> None:
    encoded = msgspec.msgpack.encode(RECORD)
    assert msgspec.msgpack.decode(encoded, type=Record) == RECORD
    shorter = msgspec.msgpack.encode(msgspec.msgpack.decode(encoded)[:13])
    assert msgspec.msgpack.decode(shorter, type=Record).timeline == Timeline()


def test_each_way_in_which_a_dial_fails_has_a_name() -> None:
    errors = (errno.ECONNREFUSED, errno.ETIMEDOUT, GIVEN_UP, errno.EACCES, 9999)
    assert [error_name(error) for error in errors] == ["refused", "timeout", "given-up", "EACCES", "other"]


def test_reasons_are_told_by_their_values() -> None:
    assert row_of(RECORD).reason == Reason.BACKEND_RESET.value
