"""One run of the benchmark: every path in a lab of its own, the measurements interleaved, all taken down."""

from __future__ import annotations

import datetime as dt
import random
import resource
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from userproxy.bench.machine import inspect
from userproxy.bench.paths import registry as paths
from userproxy.bench.paths.apiserver import ApiServer
from userproxy.bench.paths.base import PathUnavailableError
from userproxy.bench.report.record import Missing, PathRecord, Record
from userproxy.bench.samples import Sample
from userproxy.bench.site import Site, find_program
from userproxy.bench.workloads import registry as workloads
from userproxy.bench.workloads.base import MeasurementError
from userproxy.lab import network
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.bench.paths.base import Path
    from userproxy.bench.workloads.base import Settings, Workload

    Watcher = Callable[[int, int, str], None]
    """Is told how many steps are done, of how many, and what comes next."""

_FAILURES = (LabError, PathUnavailableError, MeasurementError)
_PROGRAMS = ("wrk", "iperf3", "nginx", "nsd", "dnsperf", "nft")
_OVER = "the time that was given to the run was over"


class Step:
    """One workload over all paths, once.

    Args:
        workload: what to do.
        size: the variant of the workload.
        round: its number, from 0.
    """

    def __init__(self, workload: Workload, size: int, round_: int) -> None:
        self.workload = workload
        self.size = size
        self.round = round_

    def order(self, live: Sequence[Path]) -> list[Path]:
        """The paths in an order at random, though always the same for this step.

        Whatever one path leaves behind (a warm or throttled processor, old connections) must not always meet
        the same other one.
        """
        seed = f"{self.workload.name} {self.size} {self.round}"
        return random.Random(seed).sample(live, len(live))  # noqa: S311 - no secret


def schedule(chosen: Sequence[Workload], settings: Settings) -> list[Step]:
    """All steps in order: round by round, and within a round workload by workload. Pure."""
    steps = []
    repeated = [each for each in chosen if set(each.steps(settings)) == {0}]
    rounds = max((each.steps(settings)[0] for each in repeated), default=0)
    for round_ in range(rounds):
        steps += [Step(each, 0, round_) for each in repeated if round_ < each.steps(settings)[0]]
    for each in chosen:
        if each not in repeated:
            steps += [Step(each, size, number) for number, size in enumerate(each.steps(settings))]
    return steps


class Session:
    """Everything that one run needs, from the first lab to the record.

    Args:
        name: what its labs' names begin with.
        settings: how much to measure.
        watcher: is told of the progress.
    """

    def __init__(self, name: str, settings: Settings, watcher: Watcher) -> None:
        self._name = name
        self._settings = settings
        self._watcher = watcher
        self._cluster = ApiServer(f"{name}-control")
        self._samples: list[Sample] = []
        self._missing: list[Missing] = []
        self._records: list[PathRecord] = []
        self._live: list[Path] = []

    def run(self, path_names: Sequence[str], workload_names: Sequence[str]) -> Record:
        """Measure; whatever was started or made is gone when this returns, or raises.

        Raises:
            LabError: no path at all can be measured on this machine.
        """
        network.preflight()
        for program in _PROGRAMS:
            find_program(program)
        _raise_file_limit()
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        began = time.monotonic()
        machine = inspect()
        chosen = [each for name, each in workloads.workloads().items() if name in workload_names]
        with ExitStack() as stack:
            stack.callback(self._cluster.stop)
            self._bring_up(path_names, stack)
            if not self._live:
                reasons = dict.fromkeys(each.reason for each in self._missing)
                raise LabError(f"no path can be measured: {'; '.join(reasons)}")
            self._measure(schedule(chosen, self._settings), began)
        return Record(
            started=started,
            seconds=round(time.monotonic() - began, 1),
            machine=machine,
            settings=self._settings,
            workloads=tuple(each.name for each in chosen),
            paths=tuple(self._records),
            samples=tuple(self._samples),
            missing=tuple(self._missing),
        )

    def _bring_up(self, names: Sequence[str], stack: ExitStack) -> None:
        queue = list(names)
        for number, name in enumerate(queue):  # grows where one path stands in for another
            self._watcher(number, len(queue), f"starting {name}")
            try:
                path = self._start(name, f"{self._name}-{name}", stack)
            except _FAILURES as error:
                self._miss(name, "everything", str(error))
                stand_in = paths.INSTEAD.get(name)
                if stand_in and stand_in not in queue:
                    queue.append(stand_in)
                continue
            self._live.append(path)
            self._records.append(PathRecord(path.name, path.title, path.version(), path.note))
        self._live.sort(key=lambda path: paths.NAMES.index(path.name))
        self._records.sort(key=lambda record: paths.NAMES.index(record.name))

    def _start(self, name: str, lab: str, stack: ExitStack) -> Path:
        site = Site(lab)
        path = paths.build(name, site, self._cluster)
        path.version()  # before anything is made for a program that is not there
        stack.callback(site.down)  # before it is up, as an interrupt may come at any moment
        try:
            site.up(hears=path.hears)
            path.start()
        except _FAILURES:
            site.down()
            raise
        return path

    def _measure(self, steps: Sequence[Step], began: float) -> None:
        total, done = len(steps) * len(self._live), 0
        begun: set[str] = set()
        for step in steps:
            if step.workload.name not in begun:
                begun.add(step.workload.name)
                step.workload.begin(self._live)
            for path in step.order(self._live):
                self._watcher(done, total, f"{step.workload.title}: {path.title}")
                self._measure_one(step, path, began)
                done += 1
        self._watcher(total, total, "done")

    def _measure_one(self, step: Step, path: Path, began: float) -> None:
        what = step.workload.title + (f" ({step.size:,})" if step.size else "")
        reason = step.workload.why_not(path, step.size)
        if reason is not None:
            if reason:
                self._miss(path.name, what, reason)
            return
        if self._settings.budget is not None and time.monotonic() - began > self._settings.budget:
            self._miss(path.name, what, _OVER)
            return
        try:
            path.site.flush()
            outcomes = step.workload.measure(path, step.size, self._settings)
        except _FAILURES as error:
            self._miss(path.name, what, "; ".join(filter(None, (str(error), path.fate()))))
            return
        self._samples += [
            Sample(
                path=path.name, metric=each.metric, value=each.value, round=step.round, services=each.services
            )
            for each in outcomes
        ]

    def _miss(self, path: str, what: str, reason: str) -> None:
        missing = Missing(path, what, reason)
        if missing not in self._missing:
            self._missing.append(missing)


def _raise_file_limit() -> None:
    """Let all that is started have as many files as the machine grants, each peer the same."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
