"""What an impatient person's signals do to a lab that comes up or goes down."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from userproxy.lab.processes import Interrupted, interruptible, run, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SIGNALS = pytest.mark.parametrize("signum", INTERRUPTS)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """An interrupted program ends; these tests go on."""
    before = {signum: signal.getsignal(signum) for signum in INTERRUPTS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@SIGNALS
def test_a_signal_interrupts_once(signum: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=signum.name), interruptible():
        signal.raise_signal(signum)
    signal.raise_signal(signum)  # a second one is ignored


@SIGNALS
def test_one_that_comes_meanwhile_counts_afterwards(signum: signal.Signals) -> None:
    done = []

    def take_down() -> None:
        with undisturbed():
            signal.raise_signal(signum)
            signal.raise_signal(signum)
            done.append("taken down")

    with pytest.raises(Interrupted, match=signum.name), interruptible():
        take_down()
    assert done == ["taken down"]


def test_a_child_that_has_just_been_started_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment when it is there, and whoever starts it has not heard yet that its program runs."""
    fork = vars(subprocess)["_fork_exec"]
    children: list[int] = []

    def interrupted(*args: object) -> int:
        children.append(fork(*args))
        signal.raise_signal(signal.SIGINT)
        return children[0]

    monkeypatch.setattr("subprocess._fork_exec", interrupted)
    with pytest.raises(Interrupted), interruptible():
        run(["sleep", "60"], os.environ, "", 60.0)
    with pytest.raises(ChildProcessError):  # ended, and waited for
        os.waitpid(children[0], os.WNOHANG)
