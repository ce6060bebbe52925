"""Nobody's connection waits, or fails, for a log."""

from __future__ import annotations

import json
import logging
import os
import select
from typing import TYPE_CHECKING

import pytest
import structlog

from userproxy.logs import Log, configure_logging, set_level

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_line_is_written_whole() -> None:
    reader, writer = os.pipe()
    assert Log(writer).write("grün\n" * 1000) == 5000
    assert os.read(reader, 1 << 16) == "grün\n".encode() * 1000
    os.close(reader)
    os.close(writer)


def test_what_a_full_pipe_does_not_take_is_lost_and_nobody_waits() -> None:
    reader, writer = os.pipe()
    log = Log(writer)
    for _ in range(200):
        log.write("x" * 1023 + "\n")
    assert len(os.read(reader, 1 << 20)) <= 1 << 16
    assert log.write("there is room again\n") == 20
    assert os.read(reader, 1 << 20).endswith(b"there is room again\n")
    os.close(reader)
    os.close(writer)


def test_a_reader_that_is_gone_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert Log(writer).write("to nobody\n") == 10
    os.close(writer)


def test_room_that_somebody_else_takes_in_the_meantime_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    log = Log(writer)
    while select.select([], [writer], [], 0)[1]:
        os.write(writer, bytes(4096))

    class Hopeful:
        def poll(self, _seconds: int) -> bool:
            return True

    monkeypatch.setattr(log, "_poll", Hopeful())
    assert log.write("x" * 5000) == 5000
    assert os.get_blocking(writer), "whoever else writes there is not to be surprised"
    os.close(reader)
    os.close(writer)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is logged on stderr, as JSON from `info` on: the reading end of a pipe."""
    reader, writer = os.pipe()

    class Stderr:
        def fileno(self) -> int:
            return writer

    before, handlers = structlog.get_config(), list(logging.getLogger().handlers)
    monkeypatch.setattr("sys.stderr", Stderr())
    configure_logging("json", "info")
    yield reader
    structlog.configure(**before)
    set_level("info")
    logging.getLogger().handlers[:] = handlers
    os.close(reader)
    os.close(writer)


def test_each_line_begins_with_when_how_bad_and_what(lines: int) -> None:
    structlog.get_logger().warning("it happens", service="default/web", attempts=3)
    line = json.loads(os.read(lines, 4096))
    assert list(line) == ["timestamp", "level", "event", "service", "attempts"]


def test_the_level_of_loggers_that_are_in_use_can_be_changed(lines: int) -> None:
    log = structlog.get_logger()
    bound = log.bind(worker=1)
    for level in ("info", "debug", "error", "info"):
        set_level(level)
        for logger in (log, bound):
            logger.debug("debug", at=level)
            logger.info("info", at=level)
            logger.error("error", at=level)
    told = [json.loads(line) for line in os.read(lines, 1 << 16).splitlines()]
    assert [(line["at"], line["event"]) for line in told] == [
        *[("info", "info"), ("info", "error")] * 2,
        *[("debug", "debug"), ("debug", "info"), ("debug", "error")] * 2,
        *[("error", "error")] * 2,
        *[("info", "info"), ("info", "error")] * 2,
    ]
