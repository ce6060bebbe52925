"""Workers get the file of the access log, and another one when that is rotated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import structlog

from userproxy.model.messages import LogTo
from userproxy.worker.log_file import LogFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from userproxy.model.messages import Orders

from userproxy.tests.sockets import VirtualTimers


class Worker:
    """What it was given: the inodes of files."""

    def __init__(self) -> None:
        self.files: list[int] = []

    def tell(self, order: Orders, fds: Sequence[int] = ()) -> int:
        """Of `WorkerHandle`."""
        assert isinstance(order, LogTo)
        (fd,) = fds
        self.files.append(os.fstat(fd).st_ino)
        return 0


class Site:
    """A file, and workers."""

    def __init__(self, path: Path | str) -> None:
        self.timers = VirtualTimers()
        self.workers = [Worker(), Worker()]
        self.file = LogFile(str(path), self.timers.loop, lambda: self.workers)  # type: ignore[arg-type, return-value]  # enough of handles


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def site(path: Path) -> Iterator[Site]:
    made = Site(path)
    yield made
    made.file.close()


def test_a_new_worker_gets_the_file_which_others_may_not_read(site: Site, path: Path) -> None:
    worker = Worker()
    site.file.give(worker)  # type: ignore[arg-type]
    assert worker.files == [path.stat().st_ino]
    assert path.stat().st_mode & 0o007 == 0


def test_when_it_is_rotated_all_get_the_next_one_and_else_nothing(site: Site, path: Path) -> None:
    first = path.stat().st_ino
    for _ in range(3):
        site.timers.tick()
    path.rename(path.with_suffix(".1"))
    site.timers.tick()
    second = path.stat().st_ino
    path.unlink()
    site.timers.tick()
    third = path.stat().st_ino
    assert first != second
    assert [worker.files for worker in site.workers] == [[first, second, third]] * 2


def test_one_that_cannot_be_opened_is_told_of_once_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "later" / "access.log"
    with structlog.testing.capture_logs() as logs:
        site = Site(path)
        site.timers.tick()
    assert [line["event"] for line in logs] == ["the access log cannot be opened"]
    site.file.give(site.workers[0])  # type: ignore[arg-type]
    assert [worker.files for worker in site.workers] == [[], []]
    path.parent.mkdir()
    site.timers.tick()
    assert [worker.files for worker in site.workers] == [[path.stat().st_ino]] * 2
    site.file.close()


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    site = Site(tmp_path / "fifo")
    assert site.workers[0].files == []
    site.file.close()


def test_without_one_nothing_is_looked_after() -> None:
    site = Site("")
    site.file.give(site.workers[0])  # type: ignore[arg-type]
    assert (site.workers[0].files, site.timers.delays) == ([], [])
