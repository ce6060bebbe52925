"""What an impatient person's signals do to a lab that comes up or goes down."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from userproxy.lab.processes import Interrupted, interruptible, undisturbed

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
