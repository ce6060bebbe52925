"""What a workload is to the rest of the benchmark."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import msgspec

from userproxy.bench.paths.base import ScalablePath

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from userproxy.bench.paths.base import Path


class MeasurementError(Exception):
    """A measurement gave nothing that could be believed; one line that says why."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        rounds: of all workloads over all paths.
        seconds: of each measurement, whole ones: that is what wrk and iperf3 take.
        warmup: seconds before each measurement; 0 leaves it out.
        held: open connections for the memory.
        memory_rounds: in each of which the proxy starts afresh, lest it has the memory already.
        sizes: numbers of Services.
        mixed_sizes: numbers of Services of every kind.
        answers: new connections at each of the sizes.
        changes: at each of the sizes.
        patience: seconds that a path may take until all of its Services work, or a change does.
        budget: seconds for all measurements together, after which nothing more is begun; None: as many as
            it takes.
    """

    rounds: int = 5
    seconds: int = 5
    warmup: int = 1
    held: int = 5000
    memory_rounds: int = 3
    sizes: tuple[int, ...] = (1, 100, 1000, 10_000)
    mixed_sizes: tuple[int, ...] = (10_000,)
    answers: int = 200
    changes: int = 5
    patience: float = 240.0
    budget: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """One value.

    Attributes:
        metric: its name.
        value: in its unit.
        services: how many there were, where that matters.
    """

    metric: str
    value: float
    services: int = 0


class Workload(ABC):
    """Something that is done to one path after another, in each round.

    Attributes:
        name: as on the command line.
        title: as in the report.
    """

    name: str
    title: str

    @abstractmethod
    def steps(self, settings: Settings) -> Mapping[int, int]:
        """Its variants, each measured over all paths before the next: number of Services -> rounds."""

    def why_not(self, path: Path, step: int) -> str | None:  # noqa: ARG002 - for those that have a reason
        """Why it is not measured over a path, where that is so by nature; empty if it goes without saying."""
        return None

    def begin(self, paths: Sequence[Path]) -> None:  # noqa: B027 - most need nothing
        """Bring all paths into the state that it needs, before its first step."""

    @abstractmethod
    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:
        """Measure it once.

        Raises:
            MeasurementError: the outcome cannot be used.
            PathUnavailableError: the path has ceased to work.
            LabError: a program failed.
        """


class RepeatedWorkload(Workload):
    """One that does not depend on the number of Services, and is measured in each round."""

    def steps(self, settings: Settings) -> dict[int, int]:
        """One variant, in every round."""
        return {0: settings.rounds}


def scalable(path: Path) -> ScalablePath | None:
    """The path, if it matters how many Services it has."""
    return path if isinstance(path, ScalablePath) else None
