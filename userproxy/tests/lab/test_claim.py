"""Who answers for a lab, also after a crash and after its pid has gone to somebody else."""

from __future__ import annotations

import contextlib
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from userproxy.lab.claim import Claim
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from pathlib import Path


def test_nobody_answers_for_what_is_not_there(tmp_path: Path) -> None:
    assert not Claim(tmp_path / "lab", ()).holds()


def test_who_made_the_directory_answers_for_it_as_long_as_it_lives(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "lab", ())
    claim.take()
    assert claim.holds()
    owner = tmp_path / "lab" / "owner"
    owner.write_text(owner.read_text() + "1")  # somebody with the same pid, who started later
    assert not claim.holds()


def test_the_second_one_is_refused(tmp_path: Path) -> None:
    Claim(tmp_path / "lab", ()).take()
    with pytest.raises(LabError, match="lab lab is just being brought up by somebody else"):
        Claim(tmp_path / "lab", ()).take()


def test_another_lab_s_end_meanwhile_is_no_error(tmp_path: Path) -> None:
    """Which takes away what is empty of the directories that they share."""
    shared, over = tmp_path / "run" / "lab", threading.Event()

    def end_on_and_on() -> None:
        while not over.is_set():
            for each in (shared, shared.parent):
                with contextlib.suppress(OSError):
                    each.rmdir()

    other = threading.Thread(target=end_on_and_on)
    other.start()
    try:
        for _ in range(1000):
            claim = Claim(shared / "mine", ())
            claim.take()
            assert claim.holds()
            shutil.rmtree(shared / "mine")
    finally:
        over.set()
        other.join()


def test_one_that_was_left_running_holds_while_something_runs_in_it(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "lab", ("no-such-namespace",))
    claim.take()
    claim.leave()
    assert not claim.holds()
