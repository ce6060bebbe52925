"""Processes that end with the lab that has started them."""

from __future__ import annotations

import os
import subprocess

from userproxy.lab.processes import tied_to


def output(*argv: str) -> str:
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout  # noqa: S603 - ours


def test_a_program_that_is_tied_to_its_parent_runs() -> None:
    assert output(*tied_to(os.getpid()), "echo", "it", "ran") == "it ran\n"


def test_one_whose_parent_has_ended_before_does_not_begin() -> None:
    """The kernel tells of that end only who asks before it: a lab killed at once would leave the process."""
    assert output(*tied_to(os.getppid()), "echo", "it", "ran") == ""
