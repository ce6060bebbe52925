"""The frames of the admin socket."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.address import Address
from userproxy.model.filter import ConnectionFilter
from userproxy.model.service import ServicePortName
from userproxy.ops import protocol
from userproxy.tests.ops.daemon import STATUS, UP, connection

ANSWERS = [
    protocol.Hello(1, "0.1.0"),
    protocol.ConnectionRows([connection(1), connection(2, listener=None, backend="")]),
    protocol.ServiceRows([]),
    protocol.BackendRows([UP]),
    protocol.StatusAnswer(STATUS),
    protocol.KillAnswer(7),
    protocol.DrainAnswer(2, 5),
    protocol.End(),
    protocol.Error("why, and what to do"),
]
REQUESTS = [
    protocol.GetConnections(),
    protocol.GetConnections(ConnectionFilter(service=ServicePortName("a", "b"), client="fd00::/64")),
    protocol.GetServices(),
    protocol.GetBackends(),
    protocol.GetStatus(),
    protocol.KillRequest(("4711-1",)),
    protocol.KillRequest(None, ConnectionFilter(client="10.0.1.0/24")),
    protocol.DrainRequest(Address("10.0.1.2", 0), undo=True),
]


def payload(frame: bytes, limit: int) -> bytes:
    length = protocol.frame_length(frame[:4], limit)
    assert len(frame) == 4 + length
    return frame[4:]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_arrives_as_it_was_sent(request_: protocol.Request) -> None:
    frame = protocol.request_frame(request_)
    assert protocol.decode_request(payload(frame, protocol.MAX_REQUEST)) == request_


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_arrives_as_it_was_sent(answer: protocol.Answer) -> None:
    frame = protocol.answer_frame(answer)
    assert protocol.decode_answer(payload(frame, protocol.MAX_ANSWER)) == answer


@pytest.mark.parametrize(("length", "allowed"), [(0, False), (1, True), (100, True), (101, False)])
def test_a_length_is_between_one_and_the_limit(length: int, allowed: bool) -> None:
    header = length.to_bytes(4, "big")
    if allowed:
        assert protocol.frame_length(header, 100) == length
    else:
        with pytest.raises(protocol.ProtocolError, match=f"{length} bytes, where 1 to 100"):
            protocol.frame_length(header, 100)


def test_rows_are_split_where_a_frame_is_full_and_none_is_lost() -> None:
    empty = len(msgspec.json.encode(protocol.ServiceRows([]))) + len(protocol.answer_frame(protocol.End()))
    large = [connection(number, state="x" * (protocol.MAX_ANSWER // 3)) for number in range(7)]

    frames = protocol.row_frames(protocol.ConnectionRows(large))

    assert len(frames) > 2
    assert all(empty < len(frame) <= protocol.MAX_ANSWER + 4 for frame in frames)
    answers = [protocol.decode_answer(frame[4:]) for frame in frames]
    assert [
        row for answer in answers if isinstance(answer, protocol.ConnectionRows) for row in answer.rows
    ] == large


def test_an_answer_may_be_as_long_as_the_limit_and_no_longer() -> None:
    overhead = len(msgspec.json.encode(protocol.Error("")))
    full = "x" * (protocol.MAX_ANSWER - overhead)

    assert len(protocol.answer_frame(protocol.Error(full))) == protocol.MAX_ANSWER + 4
    with pytest.raises(protocol.ProtocolError):
        protocol.answer_frame(protocol.Error(full + "x"))
    with pytest.raises(protocol.ProtocolError):
        protocol.row_frames(protocol.ConnectionRows([connection(state=full)]))


def test_what_is_not_understood_is_told_in_one_short_line() -> None:
    for wrong in (
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"type":"' + b"x" * 60_000 + b'"}',
        b'{"type":"a\\nb"}',
    ):
        with pytest.raises(protocol.ProtocolError) as refused:
            protocol.decode_request(wrong)
        assert len(str(refused.value)) <= 300
        assert "\n" not in str(refused.value)


@given(st.binary(max_size=200))
def test_bytes_are_a_request_or_a_protocol_error(wrong: bytes) -> None:
    try:
        protocol.decode_request(wrong)
    except protocol.ProtocolError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
