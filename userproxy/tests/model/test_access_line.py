"""What the access log says of a connection, for programs and for people."""

from __future__ import annotations

import json

import msgspec

from userproxy.model.access_line import as_json, as_text, line_of
from userproxy.model.endings import Reason
from userproxy.model.records import Timeline
from userproxy.tests.records import RECORD


def test_a_line_for_programs_begins_as_every_line_of_the_log() -> None:
    encoded = as_json(line_of(RECORD))
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    assert json.loads(encoded) == {
        "timestamp": "2026-11-27T12:03:04.250000Z",
        "level": "warning",
        "event": "connection ended",
        "id": "18253-4",
        "protocol": "TCP",
        "service": "default/server-service:http",
        "client": "10.0.1.3:36854",
        "frontend": "10.3.241.152:80",
        "listener": "10.100.0.2:10400",
        "source": "10.100.0.2:50001",
        "backend": "10.0.2.2:8080",
        "attempts": [
            {"backend": "10.0.1.2:8080", "error": "refused", "at_ms": 0.1, "ms": 0.4},
            {"backend": "10.0.2.2:8080", "error": "", "at_ms": 0.6, "ms": 1.0},
        ],
        "attempts_left_out": 0,
        "dial_ms": 1.0,
        "first_byte_ms": 10.2,
        "bytes_up": 83,
        "bytes_down": 200,
        "duration_seconds": 4.25,
        "reason": "backend-reset",
        "ended_by": "backend",
        "path": "redirect-to-host",
    }
    assert list(json.loads(encoded))[:4] == ["timestamp", "level", "event", "id"]


def test_one_that_ended_in_order_is_no_warning() -> None:
    line = line_of(msgspec.structs.replace(RECORD, reason=Reason.CLIENT_FIN))
    assert (line.level, line.ended_by) == ("info", "client")


def test_a_line_for_a_person_leaves_out_what_is_empty() -> None:
    record = msgspec.structs.replace(RECORD, backend=None, source=None, original=None, timeline=Timeline())
    assert as_text(line_of(record)).decode() == (
        "2026-11-27T12:03:04.250000Z [warning  ] connection ended               id=18253-4 protocol=TCP "
        "service=default/server-service:http client=10.0.1.3:36854 listener=10.100.0.2:10400 "
        "bytes_up=83 bytes_down=200 duration_seconds=4.25 reason=backend-reset "
        "ended_by=backend path=redirect-to-host\n"
    )
    assert b"attempts=10.0.1.2:8080:refused:0.4ms,10.0.2.2:8080:answered:1ms " in as_text(line_of(RECORD))
