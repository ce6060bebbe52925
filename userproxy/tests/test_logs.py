"""Nobody's connection waits, or fails, for a log."""

from __future__ import annotations

import os

from userproxy.logs import Log


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
