"""What it costs that there are many Services: the first answer, and a change."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING

from userproxy.bench.services import HTTP, fillers, newcomer
from userproxy.bench.site import settle
from userproxy.bench.workloads.base import Outcome, Settings, Workload, scalable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from userproxy.bench.paths.base import Path, ScalablePath

_PAUSE_SECONDS = 2.0
"""Between two changes, so that no bound on how often rules are written (kube-proxy: once a second) counts."""

_ANSWERS_SECONDS = 120.0
_SEED = 1


class Scale(Workload):
    """The same few things with more and more Services, after a fresh start with each number of them."""

    name = "scale"
    title = "many Services"

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def steps(self, settings: Settings) -> dict[int, int]:
        """One variant for each size."""
        return dict.fromkeys(settings.sizes, 1)

    def why_not(self, path: Path, step: int) -> str | None:
        """Only those that keep rules for Services, and only as many as they can take."""
        able = scalable(path)
        if not able:
            return ""
        if able.most_services is not None and step > able.most_services:
            return f"not tried with more than {able.most_services:,} Services: {able.why_no_more}"
        return None

    def begin(self, paths: Sequence[Path]) -> None:
        """Stop them all: each would take part in every change, and take CPU from the one that is measured."""
        for path in paths:
            path.stop()

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:
        """Start with that many, ask them, then change them, and stop."""
        able = scalable(path)
        assert able is not None  # noqa: S101 - see why_not
        try:
            return self._measure(able, step, settings)
        finally:
            able.stop()

    def _measure(self, able: ScalablePath, step: int, settings: Settings) -> list[Outcome]:
        others = fillers(step - 1)
        able.load(others, settings.patience)
        # Any of them, since a chain of rules is walked from its beginning. The first connection is a warm-up.
        chosen = random.Random(_SEED).choices([HTTP, *others], k=settings.answers)  # noqa: S311 - no secret
        where = [service.frontend for service in chosen]
        _, *seconds = able.site.answers(settings.answers + 1, where[-1:] + where, _ANSWERS_SECONDS)
        found = [Outcome("first_answer", each * 1000, step) for each in seconds]
        found += [
            Outcome("change", self._change(able, settings.patience) * 1000, step)
            for _ in range(settings.changes)
        ]
        return found

    def _change(self, path: ScalablePath, patience: float) -> float:
        """Seconds from the moment that a Service is added until a connection to it is taken."""
        service = newcomer(next(self._numbers))
        path.prepare(service)
        settle(_PAUSE_SECONDS)
        with path.site.watching(service.frontend, patience) as watch:
            began = time.monotonic()
            path.add(service)
            seconds = watch.seconds_since(began)
        path.remove(service)
        return seconds
