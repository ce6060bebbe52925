"""The lists of tests that pass: one file a proxy, a name a line. They may only grow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.e2e.outcome import Result

if TYPE_CHECKING:
    from collections.abc import Iterable

    from integration.cluster.e2e.outcome import Outcome
    from integration.cluster.rig.proxy import Proxy

DIRECTORY = Path(__file__).parents[1] / "passing"


class Passing:
    """The list of one proxy."""

    def __init__(self, proxy: Proxy, directory: Path = DIRECTORY) -> None:
        """A file that is not there yet is an empty list."""
        self._path = directory / f"{proxy.value}.txt"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.tests = frozenset(line for line in lines if line and not line.startswith("#"))

    def broken(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Those of the outcomes that should have been passes."""
        return [each for each in outcomes if each.result is not Result.PASSED and each.test in self.tests]

    def grow(self, outcomes: Iterable[Outcome]) -> list[str]:
        """Add what passed, and write the file; returns what is new."""
        passed = {each.test for each in outcomes if each.result is Result.PASSED}
        new = sorted(passed - self.tests)
        if new:
            self.tests |= passed
            self._path.parent.mkdir(exist_ok=True)
            self._path.write_text("".join(f"{test}\n" for test in sorted(self.tests)))
        return new
