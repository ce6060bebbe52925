"""A made-up record of a connection of the reference deployment."""

from __future__ import annotations

import errno

import msgspec

from userproxy.model.address import Address
from userproxy.model.endings import Reason
from userproxy.model.records import Attempt, Record, RecordRow, Timeline, row_of
from userproxy.model.service import Protocol, ServicePortName

BEGAN = 1_795_780_980.0
"""2026-11-27T12:03:00Z."""

RECORD = Record(
    pid=18253,
    number=4,
    service=ServicePortName("default", "server-service", "http"),
    protocol=Protocol.TCP,
    client=Address("10.0.1.3", 36854),
    listener=Address("10.100.0.2", 10400),
    original=bytes.fromhex("0200 0050 0a03f198 0000000000000000"),
    source=Address("10.100.0.2", 50001),
    backend=Address("10.0.2.2", 8080),
    began=BEGAN,
    seconds=4.25,
    bytes_up=83,
    bytes_down=200,
    reason=Reason.BACKEND_RESET,
    timeline=Timeline(
        attempts=(Attempt(Address("10.0.1.2", 8080), 0.0001, 0.0004, errno.ECONNREFUSED),),
        connected=0.0016,
        dial=0.001,
        first_up=0.0002,
        first_down=0.0102,
        half_closed=1.5,
        by_client=True,
    ),
)


def record(**changes: object) -> RecordRow:
    """The row of it, with changes."""
    return msgspec.structs.replace(row_of(RECORD), **changes)
