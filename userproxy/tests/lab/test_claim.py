"""Who answers for a lab, also after a crash and after its pid has gone to somebody else."""

from __future__ import annotations

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


def test_one_that_was_left_running_holds_while_something_runs_in_it(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "lab", ("no-such-namespace",))
    claim.take()
    claim.leave()
    assert not claim.holds()
