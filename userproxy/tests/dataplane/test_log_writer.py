"""Lines of a log arrive whole, or are counted as lost; nobody waits for them."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING

import pytest

from userproxy.dataplane.log_writer import ROOM_BYTES, LineWriter
from userproxy.tests.sockets import VirtualTimers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_SECONDS = 30.0


class Writer:
    """One whose time a test lets pass."""

    def __init__(self, path: Path) -> None:
        self.timers = VirtualTimers()
        self.writer = LineWriter(str(path), self.timers.loop)
        self.open(path)

    def open(self, path: Path) -> None:
        """Have it write to another file."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        self.writer.write_to(os.open(path, flags, 0o640))

    def write(self, *lines: bytes) -> None:
        """Add these, and have the thread begin to write them."""
        for line in lines:
            self.writer.add(line + b"\n")
        self.timers.tick()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def writer(file: Path) -> Iterator[Writer]:
    made = Writer(file)
    yield made
    made.writer.close()


def until(happened: Callable[[], object]) -> None:
    """What a thread does is no event of ours."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end
        os.sched_yield()


def holds(file: Path, *lines: bytes) -> Callable[[], bool]:
    return lambda: file.exists() and file.read_bytes().splitlines() == list(lines)


def test_lines_are_appended_to_what_is_there(file: Path, writer: Writer) -> None:
    file.write_bytes(b"before\n")
    writer.write(b"one", b"two")
    writer.write(b"three")
    until(holds(file, b"before", b"one", b"two", b"three"))


def test_what_waits_in_the_end_is_written(file: Path, writer: Writer) -> None:
    writer.writer.add(b"last\n")
    writer.writer.close()
    assert file.read_bytes() == b"last\n"


def test_what_waits_goes_to_the_former_file_and_what_comes_to_the_next(file: Path, writer: Writer) -> None:
    writer.write(b"one")
    writer.writer.add(b"two\n")
    former = file.rename(file.with_suffix(".1"))
    writer.open(file)
    writer.write(b"three")
    until(holds(file, b"three"))
    until(holds(former, b"one", b"two"))


def test_several_that_write_to_one_file_tear_no_line(file: Path) -> None:
    lines = {bytes([65 + number]) * 500 for number in range(3)}
    writers = [Writer(file) for _ in lines]
    for _ in range(20):
        for each, line in zip(writers, lines, strict=True):
            each.write(*[line] * 100)
    for each in writers:
        each.writer.close()
    found = file.read_bytes().splitlines()
    assert len(found) == 6000
    assert set(found) == lines


def test_on_a_full_disk_lines_are_lost_and_counted(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    writer = Writer(full)
    writer.write(b"one", b"two")
    until(lambda: writer.writer.dropped == 2)
    assert writer.writer.error == f"{full}: No space left on device"
    writer.writer.close()


def test_a_line_that_was_cut_short_spoils_no_other(file: Path, writer: Writer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        writer.write(b"0123456789abcdef")
        until(lambda: writer.writer.dropped == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.write(b"whole")
    until(holds(file, b"0123456789", b"whole"))
    assert writer.writer.error == ""


def test_lines_wait_for_the_file_that_is_on_its_way(file: Path) -> None:
    timers = VirtualTimers()
    writer = LineWriter(str(file), timers.loop)
    writer.add(b"one\n")
    writer.write_to(os.open(file, os.O_WRONLY | os.O_CREAT))
    writer.close()
    assert (writer.dropped, file.read_bytes()) == (0, b"one\n")


def test_where_none_comes_lines_are_lost_and_counted(file: Path) -> None:
    timers = VirtualTimers()
    writer = LineWriter(str(file), timers.loop)
    writer.add(b"one\n")
    timers.tick()
    writer.close()
    assert (writer.dropped, writer.error) == (1, f"{file}: cannot be opened")


def test_a_reader_that_reads_nothing_costs_bounded_memory_and_no_time(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = Writer(fifo)
    line = bytes(1000)
    for _ in range(ROOM_BYTES // 1000 + 100):
        writer.write(line)
    until(lambda: writer.writer.dropped > 0)
    writer.writer.close()
    os.close(reader)
