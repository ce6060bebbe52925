"""What it costs that there are many Services: the first sync and answer, a change, memory."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING

from userproxy.bench import usage
from userproxy.bench.mixture import mixture, public_newcomer
from userproxy.bench.services import HTTP, addresses_of, fillers, newcomer
from userproxy.bench.site import settle
from userproxy.bench.workloads.base import Outcome, Settings, Workload, scalable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userproxy.bench.paths.base import Path, ScalablePath
    from userproxy.bench.services import Service

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
        return [
            *(Outcome("first_answer", each * 1000, step) for each in self._answers(able, others, settings)),
            *(Outcome("change", each * 1000, step) for each in self._changes(able, newcomer, settings)),
        ]

    def _answers(self, able: ScalablePath, others: list[Service], settings: Settings) -> list[float]:
        """Seconds to the first answer of new connections to any of them, as a chain of rules is walked."""
        places = addresses_of([HTTP, *others])
        where = random.Random(_SEED).choices(places, k=settings.answers)  # noqa: S311 - no secret
        # The first connection is a warm-up.
        return able.site.answers(settings.answers + 1, where[-1:] + where, _ANSWERS_SECONDS)[1:]

    def _changes(self, able: ScalablePath, made: Callable[[int], Service], settings: Settings) -> list[float]:
        return [
            self._change(able, made(next(self._numbers)), settings.patience) for _ in range(settings.changes)
        ]

    def _change(self, path: ScalablePath, service: Service, patience: float) -> float:
        """Seconds from the moment that a Service is added until a connection to its last address is taken."""
        path.prepare(service)
        settle(_PAUSE_SECONDS)
        with path.site.watching(service.addresses[-1], patience) as watch:
            began = time.monotonic()
            path.add(service)
            seconds = watch.seconds_since(began)
        path.remove(service)
        return seconds


class Mixed(Scale):
    """Many Services of every kind: how long the start takes, and a change, and how much memory they need."""

    name = "mixed"
    title = "many Services of every kind"

    def steps(self, settings: Settings) -> dict[int, int]:
        """One variant for each size."""
        return dict.fromkeys(settings.mixed_sizes, 1)

    def why_not(self, path: Path, step: int) -> str | None:
        """Likewise, and only those that know every kind."""
        able = scalable(path)
        if able and not able.every_kind:
            return "it has rules for cluster IPs alone"
        return super().why_not(path, step)

    def _measure(self, able: ScalablePath, step: int, settings: Settings) -> list[Outcome]:
        others = mixture(step - 1)
        seconds = able.load(others, settings.patience)
        found = [
            Outcome("mixed_sync", seconds, step),
            *(Outcome("mixed_answer", each * 1000, step) for each in self._answers(able, others, settings)),
            *(
                Outcome("mixed_change", each * 1000, step)
                for each in self._changes(able, public_newcomer, settings)
            ),
        ]
        resident = usage.resident_bytes(able.processes())
        return [*found, Outcome("mixed_memory", resident / (1 << 20), step)]
